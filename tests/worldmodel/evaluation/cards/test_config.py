import pytest

from training.errors import BadInput
from worldmodel.evaluation.cards.config import CARDS, VERSIONS


def test_a_version_that_is_no_longer_measured_is_refused():
    with pytest.raises(BadInput, match=r"cards\.control\.version: is not as version 1"):
        CARDS["control"](version="1").check_version()
    CARDS["control"]().check_version()


@pytest.mark.parametrize("name", sorted(CARDS))
def test_the_settings_of_a_published_version_stay(name):
    """Who changes a default gives the card a new version, and its hash a new entry."""
    card = CARDS[name]()
    assert VERSIONS[name][card.version] == card.hash
