import pytest

from worldmodel.evaluation.cards.config import CARDS, VERSIONS


@pytest.mark.parametrize("name", sorted(CARDS))
def test_the_settings_of_a_published_version_stay(name):
    """Who changes a default gives the card a new version, and its hash a new entry."""
    card = CARDS[name]()
    assert VERSIONS[name][card.version] == card.hash
