"""Whether frames come at the rate that something was made for."""


def compare_rates(ours: float, theirs: float, made: str, given: str, every: str = "") -> None:
    """Warn where frames come at another rate than those that something was made for.

    Args:
        ours: frames per second that `made` was made for.
        theirs: those of `given`.
        every: the setting that keeps every N-th frame.
    """
    if abs(theirs / ours - 1) <= 0.01:
        return
    times = round(theirs / ours)
    fits = every and times > 1 and abs(theirs / times / ours - 1) <= 0.01
    remedy = f"; {every}={times} makes them equal" if fits else ""
    print(
        f"warning: {given} has {theirs:g} frames per second, {made} was made for {ours:g}: what "
        f"is counted in frames is another time{remedy}"
    )
