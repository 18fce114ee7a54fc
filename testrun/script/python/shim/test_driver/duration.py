"""Durations of scripts: datetime.timedelta, or a bare number of seconds, which
nixpkgs has deprecated."""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from datetime import timedelta
else:
    try:
        from _datetime import timedelta  # datetime takes longer to import
    except ImportError:
        from datetime import timedelta

Duration = timedelta | int | float

FIFTEEN_MINUTES = timedelta(minutes=15)


def as_timedelta(duration: Duration) -> timedelta:
    """Returns a duration as a timedelta."""
    if isinstance(duration, timedelta):
        return duration
    if isinstance(duration, bool) or not isinstance(duration, (int, float)):
        raise TypeError(
            "a duration is a timedelta or a number of seconds, "
            f"not {type(duration).__name__}"
        )
    return timedelta(seconds=duration)


def as_seconds(duration: Duration) -> float:
    """Returns a duration as a number of seconds."""
    return as_timedelta(duration).total_seconds()


def seconds(duration: Duration | None, function: str = "") -> float | None:
    """Returns a duration as the driver wants it; infinity is ten years.

    A bare number given to the function of that name is warned of, once.
    """
    if duration is None:
        return None
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if duration == float("inf"):
        return 10 * 365 * 24 * 3600.0
    value = as_seconds(duration)
    if function:
        from test_driver import deprecation

        deprecation.warn(
            f"{function}(): passing a bare int/float as a duration is deprecated. "
            "Use datetime.timedelta instead."
        )
    return value
