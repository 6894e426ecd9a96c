"""The report's sections: each takes what was gathered and gives pieces of HTML, or a note on what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rl.metrics import files, html, plots, plots_pipeline, plots_timeline
from rl.metrics.console import seconds_text
from rl.metrics.environment import environment
from rl.metrics.files import EvalExample
from rl.metrics.overlap import measure
from rl.metrics.style import svg_uri
from rl.metrics.summary import before_and_after, comparison, count_fates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rl.metrics.report import Material

Pieces = list[str]
EXAMPLES_PER_TASK, EXAMPLES_MAX = 2, 12
COMPLETIONS_SHOWN = 3
CHARACTERS_SHOWN = 1200
IMAGE_PLACE = "<image>"
"""What stands in a problem's text for an image of its own."""


def header(material: Material) -> str:
    """Name, main figures, config digest, versions and machine."""
    env = material.environment or environment()
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    source = "" if material.environment else " (of the machine that wrote this report)"
    machine = f"{env['cpu_count']} CPUs, {env['os']} {env['machine']}{source}"
    lines = [f"config {material.config_digest or 'not saved'}", machine, versions + source]
    if material.environment and "date" in env:
        lines.insert(0, f"started {env['date']}, commit {env['commit'] or 'not known'}")
    shown = "".join(f'<p class="muted">{html.text(line)}</p>' for line in lines)
    return f"<header><h1>{html.text(material.folder.resolve().name)}</h1>{html.facts(_facts(material))}{shown}</header>"


def _facts(material: Material) -> list[tuple[str, str]]:
    pairs = []
    before, after = before_and_after(material.evals)
    if before and after and before.mean is not None and after.mean is not None:
        pairs.append((f"mean@{after.k}, before to after", f"{100 * before.mean:.1f} → {100 * after.mean:.1f} %"))
        pairs.append(("change", f"{100 * (after.mean - before.mean):+.1f} points"))
    if material.metrics:
        pairs.append(("optimizer steps", str(material.metrics[-1]["step"])))
        _, times = files.column(material.metrics, "time_s")
        ends = times + [span.end for span in material.timeline]
        if ends:
            pairs.append(("wall time of RL", seconds_text(max(ends))))
    if material.pipeline:
        pairs.append(("wall time, all steps", seconds_text(sum(float(step["seconds"]) for step in material.pipeline))))
    return pairs


def scores(material: Material) -> Pieces:
    before, after = before_and_after(material.evals)
    if before is None or after is None:
        missing = "step_000000.json" if before is None else "an evaluation of a later step"
        return [_missing(f"{files.EVALS}/: {missing}", "scores before and after")]
    head, rows = comparison(before, after)
    caption = "Look for tasks that fall (orange number): a gain in the mean can hide a loss in one task."
    figure = plots_pipeline.before_after(before, after)
    return [
        f'<p class="muted">Per cent of the evaluation split; before is step {before.step}, after is step {after.step}; '
        "changes in percentage points.</p>",
        html.table(head, rows[:-1], rows[-1]),
        html.plot(svg_uri(figure), "scores before and after", caption),
    ]


def training(material: Material) -> Pieces:
    rows, evals = material.metrics, material.evals
    if not rows:
        return [_missing(files.METRICS, "the training curves")]
    return [
        _figure(
            "reward/mean", plots.reward(rows), "Look for a steady rise; a fall after a rise is collapse or staleness."
        ),
        _figure(
            "component/<name>",
            plots.components(rows),
            "Look for a part that rises while accuracy falls: the policy has found what is cheaper to earn.",
        ),
        _figure(
            "accuracy/<source>",
            plots.accuracy(rows, evals),
            "Look for training and evaluation rising together; training alone is memorised prompts, and mean@k that "
            "closes in on Pass@k means the policy now does reliably what it could do before.",
        ),
        _figure(
            "response/length_mean",
            plots.response_length(rows),
            "Look for cut completions: their answer is lost, so a rising share caps the reward.",
        ),
        _figure(
            "entropy",
            plots.entropy(rows),
            "Look for a slow decline; a fall to zero ends exploration, a rise is the start of divergence.",
        ),
        _figure(
            "kl/behaviour",
            plots.kl_and_clip(rows),
            "Look for a KL that stays flat: it measures how far the sampled data is from the policy that trains on it.",
        ),
        _figure(
            "staleness/hist",
            plots.staleness(rows),
            "Look for ages up to the bound and none above; all at 0 is a synchronous run.",
        ),
        _figure(
            "grad_norm",
            plots.grad_norm_and_lr(rows),
            "Look for single steps far above the rest: each is a batch that the clip of the gradient had to tame.",
        ),
    ]


def timeline(material: Material) -> Pieces:
    if not material.timeline:
        return [_missing(files.TIMELINE, "the timeline")]
    overlap = measure(material.timeline)
    figure = plots_timeline.timeline(material.timeline)
    if overlap is None or figure is None:
        return [html.note(f"{files.TIMELINE} holds no `generate` span of a rollout or no `train` span of the learner")]
    seconds = overlap.window[1] - overlap.window[0]
    lines = (
        ("both worked", overlap.both),
        ("learner waited for rollout", overlap.learner_waited),
        ("rollout waited for learner", overlap.rollout_waited),
        ("neither worked", overlap.neither),
    )
    rows = [(name, f"{share:.1%}", f"{share * seconds:.1f}") for name, share in lines]
    busy = [(actor, f"{share:.1%}", f"{share * seconds:.1f}") for actor, share in overlap.busy.items()]
    return [
        '<p class="muted">From the first generated token to the end of the last training step; waits, pauses and idle '
        "time are not work.</p>",
        html.table(("state", "share", "seconds"), rows, ("window", "100.0%", f"{seconds:.1f}")),
        html.table(("actor", "busy", "seconds"), busy),
        html.plot(
            svg_uri(figure),
            "timeline",
            "Look for gaps: a gap in the learner's line is a wait for rollouts, a gap in a rollout's line is a wait "
            "for the learner or for a push; both lines full is full overlap.",
        ),
    ]


def fates(material: Material) -> Pieces:
    if not material.fates:
        return [_missing(files.FATES_FILE, "the fate of each admitted prompt")]
    counts = count_fates(material.fates)
    admitted = counts["admitted"]
    reasons = Counter((row.fate, row.reason or "") for row in material.fates)
    rows = [
        (fate.replace("_", " ") if index == 0 else "", reason or "-", number, f"{number / admitted:.1%}")
        for fate in files.FATES
        for index, (reason, number) in enumerate(
            sorted(((why, n) for (name, why), n in reasons.items() if name == fate), key=lambda pair: -pair[1])
        )
    ]
    rows += [(fate.replace("_", " "), "-", 0, "0.0%") for fate in files.FATES if counts[fate] == 0]
    total = ("admitted", "", admitted, "100.0%")
    pieces = [html.table(("fate", "reason", "groups", "share"), rows, total)]
    figure = plots.fates_over_time(material.fates)
    if figure is not None:
        caption = "Look for filtered groups taking over: then most prompts are too easy or too hard to teach anything."
        pieces.append(html.plot(svg_uri(figure), "groups per step by fate", caption))
    return pieces


def agreement(material: Material) -> Pieces:
    figure = plots.probe_delta(material.metrics)
    caption = (
        "Look for the mean staying under the dashed limit after every push: above it, engine and learner are different "
        "policies and the importance ratios mean nothing."
    )
    return [_figure("probe/logprob_delta_mean", figure, caption)]


def examples(material: Material) -> Pieces:
    before, after = before_and_after(material.evals)
    shown = after or before
    if shown is None or not shown.examples:
        return [_missing(f"{files.EVALS}/step_*.json (key `examples`)", "problems with their completions")]
    earlier = {example.id: example for example in before.examples} if before and after else {}
    pieces = ['<p class="muted">Blue: full reward; light blue: part; orange: none; grey: no score.</p>']
    pieces += [_example(earlier.get(example.id), example, after is not None) for example in _choose(shown.examples)]
    return pieces


def _choose(candidates: Sequence[EvalExample]) -> list[EvalExample]:
    """The first examples of each task, so that no task is left out."""
    seen: Counter[str] = Counter()
    chosen = []
    for example in candidates:
        seen[example.source] += 1
        if seen[example.source] <= EXAMPLES_PER_TASK:
            chosen.append(example)
    return chosen[:EXAMPLES_MAX]


def _example(old: EvalExample | None, new: EvalExample, trained: bool) -> str:
    images = "".join(html.image(encoded) for encoded in new.images)
    answers = html.text(" | ".join(new.answers))
    question = (
        f"<div><b>{html.text(new.source)}</b> <span class='muted'>{html.text(new.id)}</span>"
        f"<pre>{html.text(_short(_problem(new)))}</pre><p class='muted'>accepted: {answers}</p></div>"
    )
    sides = _side("before", old) if trained else ""
    sides += _side("after" if trained else "before", new)
    return f'<div class="example"><div class="question">{images}{question}</div><div class="sides">{sides}</div></div>'


def _problem(example: EvalExample) -> str:
    """The question without the places of its images, which stand beside it; several are numbered instead."""
    if len(example.images) == 1:
        return example.problem.replace(IMAGE_PLACE, "", 1).lstrip()
    first, *rest = example.problem.split(IMAGE_PLACE) if example.images else [example.problem]
    return first + "".join(f"[image {number}] {part}" for number, part in enumerate(rest, start=1))


def _side(title: str, example: EvalExample | None) -> str:
    if example is None:
        return f"<div><h3>{title}</h3>{html.note('this problem is not among the examples of that evaluation')}</div>"
    rewards = [reward for reward in example.rewards if reward is not None]
    said = f"{title}: {len(example.completions)} completions"
    if rewards:
        said += f", mean reward {sum(rewards) / len(rewards):.2f}"
    blocks = "".join(_completion(*shown) for shown in choose_completions(example))
    return f"<div><h3>{html.text(said)}</h3>{blocks}</div>"


def choose_completions(example: EvalExample) -> list[tuple[str, float | None, int]]:
    """Different completions with their rewards and how often each was given: the commonest of the best and of the
    worst reward, then the commonest others."""
    counts = Counter(zip(example.completions, example.rewards, strict=True))
    common = [(text, reward, count) for (text, reward), count in counts.most_common()]
    by_reward = sorted(common, key=lambda shown: -1.0 if shown[1] is None else shown[1], reverse=True)
    scored = [shown for shown in by_reward if shown[1] is not None]
    worst = [shown for shown in scored if shown[1] == scored[-1][1]]
    order = dict.fromkeys([*scored[:1], *worst[:1], *common])
    chosen = set(list(order)[:COMPLETIONS_SHOWN])
    return [shown for shown in by_reward if shown in chosen]


def _completion(completion: str, reward: float | None, count: int) -> str:
    kind = "none" if reward is None else "right" if reward >= 1.0 else "part" if reward > 0.0 else "wrong"
    label = "no score" if reward is None else f"reward {reward:.3g}"
    label += f", given {count} times" if count > 1 else ""
    return f'<div class="completion {kind}"><b>{label}</b><pre>{html.text(_short(completion))}</pre></div>'


def _short(value: str) -> str:
    left_out = len(value) - CHARACTERS_SHOWN
    return value if left_out <= 0 else f"{value[:CHARACTERS_SHOWN]} … ({left_out} more characters)"


def curation(material: Material) -> Pieces:
    columns = material.candidates
    if columns is None:
        return [_missing(f"{files.CURATE_FOLDER}/{files.CANDIDATES}", "the candidates and which were kept")]
    total, kept = len(columns["kept"]), sum(map(bool, columns["kept"]))
    return [
        f"<p>{kept} of {total} candidates were kept.</p>",
        _figure(
            files.CANDIDATES,
            plots_pipeline.curation(columns),
            "Look for the kept region at high Pass@N and low Pass@1: what the policy can solve but rarely does.",
        ),
        _figure(
            files.CANDIDATES,
            plots_pipeline.curation_reasons(columns),
            "Look for a source that keeps almost nothing: it is too easy or too hard for this policy.",
        ),
    ]


def sft(material: Material) -> Pieces:
    if not material.sft:
        return [_missing(f"{files.SFT_GLOB}/{files.METRICS}", "the loss of the supervised stages")]
    rows = []
    for name, metrics in material.sft.items():
        _, losses = files.column(metrics, "loss")
        _, times = files.column(metrics, "time_s")
        _, speed = files.column(metrics, "tokens_per_s")
        ends = (f"{losses[0]:.3f}", f"{losses[-1]:.3f}") if losses else ("-", "-")
        rate = f"{sum(speed) / len(speed):.0f}" if speed else "-"
        steps = metrics[-1]["step"] if metrics else 0  # rows are logged every so many steps
        rows.append((name, steps, *ends, rate, seconds_text(times[-1]) if times else "-"))
    return [
        html.table(("stage", "steps", "first loss", "last loss", "tokens/s", "time"), rows),
        _figure(
            "loss",
            plots_pipeline.sft_loss(material.sft),
            "Each stage has a scale of its own. Look for curves that still fall where they end: more steps would help.",
        ),
    ]


def pipeline(material: Material) -> Pieces:
    if not material.pipeline:
        return [_missing(files.PIPELINE, "the time of each step")]
    rows = [
        (step["step"], seconds_text(float(step["seconds"])), step.get("exit_code", "-")) for step in material.pipeline
    ]
    total = ("all", seconds_text(sum(float(step["seconds"]) for step in material.pipeline)), "")
    return [html.table(("step", "time", "exit code"), rows, total)]


def config(material: Material) -> Pieces:
    if material.config is None:
        return [_missing(files.CONFIG, "the resolved config")]
    summary = f"{files.CONFIG}, sha256 {material.config_digest}…"
    return [f"<details><summary>{html.text(summary)}</summary><pre>{html.text(material.config)}</pre></details>"]


def _figure(key: str, figure: Figure | None, caption: str) -> str:
    if figure is None:
        return html.note(f"No plot of {key}: no row of the file holds it.")
    return html.plot(svg_uri(figure), key, caption)


def _missing(where: str, what: str) -> str:
    return html.note(f"Not here: {what}. {where} would hold it.")
