"""`make bench-attribution`: do attributions of a real student's verdicts add up, after how many gradients and seconds, and along what kind of path.

Prints Markdown. Every question is drafted by the student, rewritten by it, and the verdict of that rewriting attributed in float32, as the `attribute` stage
does. `--sweep` also walks the path of the first question: how far the log-odds swing, and by how much each rule misses, for several baselines.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from scipy.interpolate import make_interp_spline

from tasks.contracts.jobs import ConvertStep, Weights
from tasks.contracts.recipes import Attribute
from tasks.contracts.rows import Arm, Attributable
from tasks.gateways.hub import fetch_smollm2
from tasks.logic.asking import arm_requests, draft_requests, drafted
from tasks.logic.attribution import CHAIN, CONTENT, TEMPLATE, attributables, shares
from tasks.logic.benchmarks import get_benchmark, pocketqa
from tasks.training.attribution import attribute, log_odds, read_tokens
from tasks.training.generation import answer
from tasks.training.merging import expand
from tasks.training.products import fast_products
from tasks.training.student import Student, convert_gguf, load_student

PLACE = Path(__file__).resolve().parents[3] / "data" / ".bench" / "attribution"
BENCHMARK = get_benchmark("pocketqa")
GRID = 256  # stretches of the walked path: four times finer than its swings
ROWS = 8


def main() -> None:
    options = _options()
    folder = options.model or _smollm2()
    weights = Weights(model=str(folder), adapter=str(options.adapter or ""), quantization="none", dtype="float32")
    student = load_student(weights, folder=folder, device="cpu", trainable=False)
    texts = _texts(student, options)
    expand(student.model)
    recipe = Attribute(questions=len(texts), points=options.points, most_points=options.most_points, tolerance=options.tolerance)
    headings = ("question", "tokens", "change, nats", "gradients", "error", "draft's mass (share of tokens)", "seconds", "CPU seconds")
    print(f"| {' | '.join(headings)} |\n|{' --- |' * len(headings)}")
    errors, points, took = [], [], []
    for text in texts:
        wall, cpu = time.monotonic(), time.process_time()
        with fast_products():
            ((found, tokens),) = attribute(student, [text], recipe=recipe, batch_tokens=options.batch_tokens, report=lambda *_: None)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        part = shares(tokens)
        figures = f"{found.points} | {found.error:.1%} | {part.mass:.0%} ({part.token_share:.0%}) | {wall:.0f} | {cpu:.0f}"
        print(f"| {text.qid} | {len(tokens)} | {found.change:+.2f} | {figures} |", flush=True)
        errors.append(found.error)
        points.append(found.points)
        took.append((wall, cpu))
    inside = sum(error <= recipe.tolerance for error in errors) / len(errors)
    print(
        f"\nWithin {recipe.tolerance:.0%}: {inside:.0%} of {len(errors)}; error {median(errors):.1%} in the median, {max(errors):.1%} at worst; "
        f"{median(points):.0f} gradients in the median, {max(points)} at most; "
        f"{median(wall for wall, _ in took):.0f} s a text, {median(cpu for _, cpu in took):.0f} of CPU, {torch.get_num_threads()} threads."
    )
    if options.sweep:
        _sweep(student, texts[0])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attribution", description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a student's full weights; SmolLM2-135M is fetched where none is given")
    parser.add_argument("--adapter", type=Path, help="folder of an adapter on top of it")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=48, help="of a chain")
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--most-points", type=int, default=512)
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--sweep", action="store_true", help="walk the path of the first question; some 1,300 forwards")
    return parser.parse_args()


def _smollm2() -> Path:
    out = PLACE / "smollm2"
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        gguf = fetch_smollm2(PLACE / "downloads")
        convert_gguf(ConvertStep(gguf=str(gguf), dtype="float32", out=str(out)), PLACE, lambda *_: None)
    return out


def _texts(student: Student, options: argparse.Namespace) -> list[Attributable]:
    rows = pocketqa.sample(split="dev", n=options.questions, seed=0)
    settings = {"temperature": 0.0, "seed": 0, "batch_size": options.questions, "report": lambda *_: None}
    drafts = drafted(rows, answer(student, draft_requests(rows, benchmark=BENCHMARK), max_new_tokens=48, **settings), benchmark=BENCHMARK, drafter="bench")
    chains = answer(student, arm_requests(drafts, arm=Arm.REWRITE, benchmark=BENCHMARK), max_new_tokens=options.new_tokens, **settings)
    return attributables(drafts, chains, model="bench", draft="own", benchmark=BENCHMARK)


def _sweep(student: Student, text: Attributable) -> None:
    """Rules are applied to a spline through the log-odds along the path, so that each baseline takes forwards only."""
    tokens, values = read_tokens(student, text), log_odds(student, text)
    table = student.model.get_input_embeddings().weight.detach()
    whole = table[[token.id for token in tokens]]
    pad, zero, mean = table[student.tokenizer.pad_token_id], torch.zeros_like(table[0]), table.mean(dim=0)
    baselines = {
        "pad, question and draft": (pad, CONTENT), "zero, question and draft": (zero, CONTENT), "mean, question and draft": (mean, CONTENT),
        "pad, the chain too": (pad, (*CONTENT, CHAIN)), "pad, everything": (pad, (*CONTENT, CHAIN, TEMPLATE)),
    }  # fmt: skip
    rules = [f"{name} {count}" for name in ("even", "Gauss") for count in (32, 64, 128, 256)]
    print(f"\n| baseline | change | path walked | {' | '.join(rules)} |\n|{' --- |' * (3 + len(rules))}")
    for name, (empty, roles) in baselines.items():
        bare = torch.where(torch.tensor([token.role in roles for token in tokens])[:, None], empty, whole)
        walked = np.array(_walk(values, bare, whole))
        slope = make_interp_spline(np.linspace(0, 1, GRID + 1), walked, k=5).derivative()
        change = walked[-1] - walked[0]
        misses = [_even(slope, count) - change for count in (32, 64, 128, 256)] + [_gauss(slope, count) - change for count in (32, 64, 128, 256)]
        print(f"| {name} | {change:+.2f} | {np.abs(np.diff(walked)).sum():.1f} | {' | '.join(f'{miss:+.3f}' for miss in misses)} |", flush=True)


@torch.no_grad()
def _walk(values, bare: torch.Tensor, whole: torch.Tensor) -> list[float]:
    places = torch.linspace(0, 1, GRID + 1)[:, None, None]
    return [value for some in places.split(ROWS) for value in values(bare + some * (whole - bare)).tolist()]


def _even(slope, count: int) -> float:
    return float(np.trapezoid(slope(np.linspace(0, 1, count + 1)), dx=1 / count))


def _gauss(slope, count: int) -> float:
    places, widths = np.polynomial.legendre.leggauss(count)
    return float(np.dot(widths / 2, slope((1 + places) / 2)))


if __name__ == "__main__":
    main()
