"""The plan as text: aligned columns, units in every line."""

import textwrap

from training.planner.options import Option, Plan

WIDTH = 34


def report(plan: Plan) -> str:
    """The plan as text for a terminal."""
    return "\n".join([*_model(plan), "", *_settings(plan), "", *_advice(plan)])


def _model(plan: Plan) -> list[str]:
    cost, device = plan.configured.cost, plan.device
    work, settings = cost.work, plan.configured.settings
    peak = device.peak(settings.precision) / 1e12
    batch = settings.micro_batch * settings.accumulate * plan.num_devices
    tokens = work.tokens * settings.accumulate * plan.num_devices
    per_token = f"{work.flops / work.tokens:.4g} forward and backward"
    if work.flops_causal:
        per_token += f"; {work.flops_causal / work.tokens:.4g} with causal attention"
    counted = cost.flops / work.tokens
    return [
        f"plan of {plan.name}: nothing is trained or written",
        "",
        _line("devices", f"{plan.num_devices} x {device.name}, strategy {plan.strategy}"),
        _line("", f"{_gb(device.memory)}, {peak:.4g} TFLOP/s ({device.source}) each"),
        _line("trained parameters", f"{sum(cost.parameters.values()) / 1e6:,.2f} M"),
        *(_line(f"  {k}", f"{v / 1e6:,.2f} M") for k, v in cost.parameters.items()),
        _line("FLOPs per token, by formula", per_token),
        _line("  formula", cost.formula),
        _line("FLOPs per token, counted", f"{counted:.4g}, every operator of a step"),
        _line("global batch", f"{batch} examples = {tokens:,} tokens"),
        _line("optimizer steps", f"{plan.max_steps:,}{_passes(plan)}"),
    ]


def _passes(plan: Plan) -> str:
    if not plan.max_passes:
        return ""
    return f" at most; max_passes={plan.max_passes:g} ends a run over little data sooner"


def _settings(plan: Plan) -> list[str]:
    columns = [plan.configured]
    if plan.proposed is not None and plan.proposed is not plan.configured:
        columns.append(plan.proposed)
    rows: list[tuple[str, list[str]]] = [
        ("", ["configured", "proposed"][: len(columns)]),
        ("micro-batch", [str(c.settings.micro_batch) for c in columns]),
        ("accumulated batches", [str(c.settings.accumulate) for c in columns]),
        (
            "activation checkpointing",
            ["on" if c.settings.checkpointing else "off" for c in columns],
        ),
        ("precision", [c.settings.precision for c in columns]),
        ("peak memory per device", [_gb(c.bytes) for c in columns]),
    ]
    for part in plan.configured.parts:
        if any(c.parts[part] for c in columns):
            rows.append((f"  {part}", [_gb(c.parts[part]) for c in columns]))
    room = plan.device.usable
    rows += [
        (f"fits the usable {_gb(room)}", ["yes" if c.fits else "NO" for c in columns]),
        ("seconds per step", [f"{c.seconds:.4g}" for c in columns]),
        (f"tokens/s at {plan.device.share:.0%} of the peak", [_speed(plan, c) for c in columns]),
        ("hours of training", [f"{_hours(plan, c):,.2f}" for c in columns]),
    ]
    return [_line(name, "".join(f"{v:>14}" for v in values)) for name, values in rows]


def _advice(plan: Plan) -> list[str]:
    if plan.proposed is None:
        return [
            "Nothing fits, not even a micro-batch of 1: take trainer=fsdp on more devices, devices",
            "with more memory (plan_device=...), or a smaller model.",
        ]
    if plan.proposed is plan.configured:
        return ["The configured settings fit, and none that give the same batch are faster."]
    return [f"To take the proposal, add: {' '.join(plan.overrides)}"]


def _speed(plan: Plan, option: Option) -> str:
    tokens = option.cost.work.tokens * option.settings.accumulate * plan.num_devices
    return f"{tokens / option.seconds:,.0f}"


def _hours(plan: Plan, option: Option) -> float:
    return option.seconds * plan.max_steps / 3600


def _gb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


def _line(name: str, value: str) -> str:
    text = f"{name:<{WIDTH}}{value}".rstrip()
    return textwrap.fill(text, 100, subsequent_indent=" " * WIDTH) if len(text) > 100 else text
