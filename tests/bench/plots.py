"""Draws what was measured; needs the extra ``bench`` (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.curves import Curves
from tests.bench.rig import BenchFailed

_ACCEPTED, _DELIVERED, _PENDING = "#1f6fb4", "#2a9d4a", "#c0392b"


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise BenchFailed("matplotlib is not installed: use the make target, which installs it") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def check() -> None:
    """Raises BenchFailed where nothing could be drawn: better said before the measurement than after."""
    _pyplot()


def draw_overload(
    path: Path, panels: Sequence[tuple[str, Curves, Sequence[tuple[float, str]]]], note: str
) -> None:
    """One panel each: title, curves, and moments with what they are."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(9, 4 * len(panels)), squeeze=False)
    for axis, (title, found, moments) in zip(axes[:, 0], panels, strict=True):
        axis.plot(found.seconds, found.accepted, color=_ACCEPTED, label="accepted so far")
        axis.plot(found.seconds, found.delivered, color=_DELIVERED, label="delivered so far")
        axis.plot(found.seconds, found.pending, color=_PENDING, label="pending", linewidth=1)
        for at, text in moments:
            axis.axvline(at, color="#888888", linewidth=0.8, linestyle=":")
            axis.annotate(
                text, (at, 0.97), xycoords=("data", "axes fraction"), fontsize=7, rotation=90, va="top"
            )
        axis.set(title=title, xlabel="seconds", ylabel="SMS", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", fontsize=8)
    _save(figure, path, note)


def draw_growth(path: Path, points: Sequence[Mapping[str, Any]], note: str) -> None:
    """Throughput against stored SMS; each point has stored_rows, connectors and medians per second."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(9, 4.5))
    ticks = [
        f"{_short(point['stored_at_start'])} SMS\n{_short(point['connectors'])} connector(s)"
        for point in points
    ]
    places = range(len(points))
    for key, color, label in (
        ("accepted_per_second", _ACCEPTED, "accepted/s"),
        ("end_to_end_per_second", _DELIVERED, "end-to-end/s"),
    ):
        axis.plot(places, [point[key] for point in points], "o-", color=color, label=label)
        for place, point in zip(places, points, strict=True):
            low, high = min(point[f"{key}_rounds"]), max(point[f"{key}_rounds"])
            axis.vlines(place, low, high, color=color, alpha=0.5)
    axis.set(title="Throughput against stored SMS (median and range of the rounds)", ylim=(0, None))
    axis.set_xticks(list(places), ticks, fontsize=8)
    axis.set_ylabel("SMS/s")
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path, note)


def draw_memory(path: Path, sms: Sequence[int], mebibytes: Sequence[float], note: str) -> None:
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(9, 4))
    axis.plot(sms, mebibytes, color=_ACCEPTED)
    axis.set(title="Memory of one worker", xlabel="SMS delivered", ylabel="RSS, MiB", ylim=(0, None))
    axis.grid(alpha=0.3)
    _save(figure, path, note)


def _short(count: int) -> str:
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return str(count)


def _save(figure: Any, path: Path, note: str) -> None:
    figure.text(0.01, 0.005, note, fontsize=7, color="#555555")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
