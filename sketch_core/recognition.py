"""Whether drawings are recognised: what the judge makes of free drawings, endings and variations.

The figures of real drawings stand beside all others, since the judge errs on those too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketch_core import quickdraw, strokes
from sketch_core.generate import Sketcher
from sketch_core.inspection import guess
from sketch_core.judge import Judge


def halves(drawing: strokes.Drawing) -> tuple[strokes.Drawing, bool]:
    """The first half of a drawing's points, and whether its last stroke goes on (``pen_down``)."""
    left = max(sum(len(stroke) for stroke in drawing) // 2, 1)
    start: strokes.Drawing = []
    for stroke in drawing:
        if left <= 0:
            break
        start.append(stroke[:left])
        left -= len(stroke)
    return start, left < 0


def join(start: strokes.Drawing, ending: strokes.Drawing, pen_down: bool) -> strokes.Drawing:
    """A start and its ending as one drawing; with ``pen_down`` the ending's first stroke continues the start's last."""
    if pen_down and ending:
        return [*start[:-1], np.concatenate([start[-1], ending[0][1:]]), *ending[1:]]
    return [*start, *ending]


def best_filled(drawings: quickdraw.DrawingSet, n: int = 40) -> list[str]:
    """The n categories with most drawings, by name where they have equally many."""
    counts = drawings.counts()
    return sorted(sorted(drawings.categories, key=lambda name: -counts[drawings.categories.index(name)])[:n])


def measure(
    sketcher: Sketcher,
    judge: Judge,
    drawings: quickdraw.DrawingSet,
    *,
    per_category: int = 5,
    free: Sequence[float] = (0.25,),
    endings: Sequence[float] = (0.25,),
    variations: Sequence[float] = (0.3,),
    retrieval: bool = True,
    n_best: int = 40,
    only_best: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """How often a judge names drawings by their true category, real ones first: the ceiling.

    Args:
        drawings: a split that neither network nor judge was trained on, whole: ``n_best`` goes by its counts.
        per_category: real drawings (at most) and free ones of each category.
        free, endings, variations: temperatures to try each at; none to leave it out.
        retrieval: whether to also look up each drawing's z among the z of all reconstructions.
        n_best: how many of the best-filled categories get figures of their own ("best").
        only_best: leave all other categories out, which leaves time for more drawings of these.

    Returns:
        Nested figures: ``top1`` and ``top5`` are shares of drawings (the judge chooses among all categories),
        for "all" categories and for the "best" filled.
    """
    best = set(best_filled(drawings, n_best))
    drawn_names = [name for name in sketcher.categories if name in best or not only_best]
    real = drawings.per_category(per_category, seed)
    if only_best:
        real = real.subset([i for i, label in enumerate(real.labels) if real.categories[label] in best])
    names = [real.categories[label] for label in real.labels]
    originals = [strokes.from_stroke3(rows) for rows in real.stroke3]
    in_best = np.array([name in best for name in names])

    def figures(ranks: NDArray[np.int64], chosen: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
        groups = {"best": ranks[chosen]} if only_best else {"all": ranks, "best": ranks[chosen]}
        return {
            group: {
                "top1": round(float((items < 1).mean()), 4),
                "top5": round(float((items < 5).mean()), 4),
                "drawings": len(items),
            }
            for group, items in groups.items()
            if len(items)
        }

    real_ranks = judge.ranks(originals, names)
    result: dict[str, Any] = {
        "judge": {"sha256": judge.info.get("sha256", "")},
        "n_best": len(best),
        "real": figures(real_ranks, in_best),
    }
    for heat in free:
        drawn: list[strokes.Drawing] = []
        for name in drawn_names:
            drawn += sketcher.draw(name, heat, per_category, seed)
        free_names = [name for name in drawn_names for _ in range(per_category)]
        ranks = judge.ranks(drawn, free_names)
        result.setdefault("free", {})[str(heat)] = figures(ranks, np.array([name in best for name in free_names]))
    if endings:
        starts = [halves(original) for original in originals]
        half_ranks = judge.ranks([start for start, _ in starts], names)
        result["halves"] = figures(half_ranks, in_best)
        for heat in endings:
            ended = [
                join(start, sketcher.complete(start, name, heat, 1, seed, pen_down=pen_down)[0], pen_down)
                for (start, pen_down), name in zip(starts, names, strict=True)
            ]
            result.setdefault("endings", {})[str(heat)] = figures(judge.ranks(ended, names), in_best)
    if sketcher.model.encoder is None:
        return result
    for heat in variations:
        varied = [
            sketcher.vary(original, name, heat, 1, seed)[0] for original, name in zip(originals, names, strict=True)
        ]
        ranks = judge.ranks(varied, names)
        found = figures(ranks, in_best)
        named = real_ranks == 0
        for group, chosen in (("all", named), ("best", named & in_best)):
            if group in found and chosen.any():
                # Only where the judge knows the original can it tell whether a variation kept the category.
                found[group]["kept"] = round(float((ranks[chosen] == 0).mean()), 4)
                found[group]["kept_of"] = int(chosen.sum())
        result.setdefault("variations", {})[str(heat)] = found
    if retrieval:
        result["retrieval"] = retrieved(sketcher, originals, names, seed=seed)
    return result


def retrieved(
    sketcher: Sketcher, originals: Sequence[strokes.Drawing], names: Sequence[str | None], *, seed: int = 0
) -> dict[str, float]:
    """Whether a drawing's own reconstruction is what lies nearest to it in z, among those of all drawings.

    Each drawing is decoded from its μ once, at τ 0.1, and encoded again; nearest by the distance of μ.
    """
    again = [
        sketcher.vary(item, name, 0.1, 1, seed, spread=0.0, best_of=1)[0]
        for item, name in zip(originals, names, strict=True)
    ]
    mu, mu_again = (
        np.concatenate([sketcher.encode(items[i : i + 64])[0] for i in range(0, len(items), 64)])
        for items in (originals, again)
    )
    # |a - b|² = |a|² - 2ab + |b|², of which |a|² is the same along a row.
    distances = (mu_again**2).sum(axis=1) - 2.0 * mu @ mu_again.T  # (n, n)
    ranks = (distances < np.diag(distances)[:, None]).sum(axis=1)
    found = {f"top{n}": round(float((ranks < n).mean()), 4) for n in (1, 10, 50)}
    return found | {"among": len(originals)}


def guesses(
    sketcher: Sketcher,
    drawings: quickdraw.DrawingSet,
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    per_category: int = 1,
    n_best: int = 40,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, float]]]:
    """How often :func:`sketch_core.inspection.guess` is right after so large a share of a drawing's points."""
    best = set(best_filled(drawings, n_best))
    real = drawings.per_category(per_category, seed)
    names = [real.categories[label] for label in real.labels]
    in_best = np.array([name in best for name in names])
    result: dict[str, dict[str, dict[str, float]]] = {}
    for share in shares:
        hits = []
        for rows, name in zip(real.stroke3, names, strict=True):
            part = rows[: max(2, round(share * len(rows)))]
            found = [guessed for guessed, _ in guess(sketcher, strokes.from_stroke3(part))]
            hits.append((found[0] == name, name in found))
        right = np.array(hits)
        result[f"{share:g}"] = {
            group: {"top1": round(float(right[chosen, 0].mean()), 4), "top5": round(float(right[chosen, 1].mean()), 4)}
            for group, chosen in (("all", np.ones(len(names), dtype=bool)), ("best", in_best))
            if chosen.any()
        }
    return result


def table(found: dict[str, Any]) -> str:
    """The figures of :func:`measure` as an aligned text table."""
    rows = [("real drawings", found["real"])]
    rows += [(f"free, tau {heat}", figures) for heat, figures in found.get("free", {}).items()]
    if "halves" in found:
        rows.append(("first halves alone", found["halves"]))
    rows += [(f"endings of halves, tau {heat}", figures) for heat, figures in found.get("endings", {}).items()]
    rows += [(f"variations, tau {heat}", figures) for heat, figures in found.get("variations", {}).items()]
    groups = [group for group in ("all", "best") if group in found["real"]]
    heads = {"all": "all", "best": f"{found['n_best']} best filled"}
    lines = ["named by the judge, top 1 / top 5".ljust(34) + "".join(f"{heads[group]:>20}" for group in groups)]
    for name, figures in rows:
        cells = "".join(f"{figures[group]['top1']:>12.3f} / {figures[group]['top5']:.3f}" for group in groups)
        lines.append(name.ljust(34) + cells)
    for heat, figures in found.get("variations", {}).items():
        kept = [f"{figures[group]['kept']:>11.3f} of {figures[group]['kept_of']:<5}" for group in groups
                if "kept" in figures[group]]  # fmt: skip
        if kept:
            lines.append(f"kept where named rightly, tau {heat}".ljust(34) + "".join(f"{cell:>20}" for cell in kept))
    if "retrieval" in found:
        lines.append(
            "a drawing's z nearest to that of its own reconstruction: "
            "top 1 {top1:.3f}, top 10 {top10:.3f}, top 50 {top50:.3f} among {among:,}".format(**found["retrieval"])
        )
    return "\n".join(lines)
