"""How good the multi-view model is, measured on objects that it was never trained on.

    python -m bench.prior --props STEM --quick            # about five minutes on one free core
    python -m bench.prior --props STEM [--model FOLDER] [--parts captions,compositional] [--count N]

Parts (docs/evaluation.md says what each measures): autoencoder, novel, captions, compositional, diversity,
memory. Samples are kept (`bench.prior_samples`): a run that was stopped goes on, and a part that is asked
for again only measures again. Figures of all parts that were finished for this model and these settings go
into `OUT/report.md` and `OUT/report.json`, with the number of objects that each comes from; pictures beside
it.
Same model, same settings: same numbers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.evaluator import load_judge
from bench.prior_page import Row, table
from bench.prior_parts import Bench, autoencoder, novel
from bench.prior_samples import Sampler, Sampling
from bench.prior_text import caption_part, compositional, diversity, memory
from pipeline.models import revision_of, verified_model
from pipeline.multiview.pipeline import load
from pipeline.preset import load_preset
from pipeline.training.props import load_props

ROOT = Path(__file__).resolve().parent.parent
MARK = "<!-- written by bench.prior -->"
PARTS = ("autoencoder", "novel", "captions", "compositional", "diversity", "memory")


RUN: dict[str, Callable[[Bench], None]] = {
    "autoencoder": autoencoder,
    "novel": novel,
    "captions": caption_part,
    "compositional": compositional,
    "diversity": diversity,
    "memory": memory,
}


def write_report(out: Path, header: dict[str, Any]) -> str:
    """Merge the parts that were measured with these settings; returns the table."""
    rows: list[Row] = []
    sections = []
    for part in PARTS:
        path = out / "parts" / f"{part}.json"
        if not path.is_file():
            continue
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["header"] != header:
            continue
        rows += [Row(**row) for row in stored["rows"]]
        sections += [f"## {part}\n", *(f"![{name}]({name})\n" for name in stored["pictures"])]
    facts = "\n".join(f"* {name}: {value}" for name, value in header.items())
    text = table(rows)
    page = f"# What `{header['model']}` can do\n\n{facts}\n\n{text}\n\n" + "\n".join(sections)
    (out / "report.md").write_text(page, encoding="utf-8")
    report = {"header": header, "rows": [asdict(row) for row in rows]}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return text


def update_docs(page: Path, header: dict[str, Any], text: str) -> None:
    """Put the table into the documentation, in place of the one before it, after the mark."""
    before, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{page} lacks the line {MARK}")
    facts = ", ".join(f"{name} {value}" for name, value in header.items())
    page.write_text(f"{before}{mark}\n\n{facts}\n\n{text}\n", encoding="utf-8")


def evaluate(bench: Bench, parts: Sequence[str], header: dict[str, Any]) -> str:
    """Run the parts, store each when it is finished, write the report; returns the table."""
    (bench.out / "parts").mkdir(parents=True, exist_ok=True)
    for part in parts:
        bench.rows, bench.pictures = [], []
        RUN[part](bench)
        stored = {"header": header, "rows": [asdict(r) for r in bench.rows], "pictures": bench.pictures}
        (bench.out / "parts" / f"{part}.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")
        bench.said(f"{part} done")
    return write_report(bench.out, header)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--props", type=Path, required=True, help="the training pack without its endings")
    parser.add_argument("--model", type=Path, help="folder of a pipeline; the shipped one by default")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; with commas")
    parser.add_argument("--count", type=int, help="objects or prompts of each part; all by default")
    parser.add_argument("--quick", action="store_true", help="16 of each, 2 seeds")
    parser.add_argument("--preset", default="standard", help="whose rig, steps and guidance are used")
    parser.add_argument("--steps", type=int, help="sampling steps instead of the preset's")
    parser.add_argument("--guidance", type=float, help="guidance scale instead of the preset's")
    parser.add_argument(
        "--candidates", type=int, help="sets to choose from, for text, instead of the preset's"
    )
    parser.add_argument("--redraws", type=int, help="of the chosen set, for text, instead of the preset's")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "prior")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/evaluation.md")
    arguments = parser.parse_args()
    parts = [part.strip() for part in arguments.parts.split(",") if part.strip()]
    for part in parts:
        if part not in PARTS:
            parser.error(f"--parts: {part!r} is unknown. Known: {', '.join(PARTS)}")
    if arguments.count is not None and arguments.count < 2:
        parser.error("--count must be at least 2")
    count = 16 if arguments.quick and arguments.count is None else arguments.count
    config = load_preset(arguments.preset).views
    given = {
        "num_inference_steps": arguments.steps,
        "guidance_scale": arguments.guidance,
        "picture_guidance_scale": arguments.guidance,
        "candidates": arguments.candidates,
        "redraws": arguments.redraws,
    }
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    steps, guidance = config.num_inference_steps, config.guidance_scale
    info = verified_model(arguments.model)
    props = list(load_props(arguments.props))
    pipeline = load(info.directory, device=arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)

    def said(text: str) -> None:
        print(text, flush=True)

    decile = [-1]

    def progress(fraction: float, message: str = "") -> None:
        if int(10 * fraction) != decile[0]:
            decile[0] = int(10 * fraction)
            said(f"{message} {fraction:.0%}")

    bench = Bench(
        props=props,
        pipeline=pipeline,
        sampler=Sampler(
            pipeline,
            Sampling(info.hashes, steps, config.picture_guidance_scale, config.picture_start_level),
            arguments.out / "samples",
        ),
        judge=load_judge(arguments.props, props, progress=progress),
        config=config,
        out=arguments.out,
        count=count,
        seeds=2 if arguments.quick else 4,
        said=said,
    )
    header = {
        "model": info.name,
        "revision": revision_of(info.hashes),
        "steps": steps,
        "guidance": guidance,
        "guidance rescale": config.guidance_rescale,
        "guidance for pictures": config.picture_guidance_scale,
        "candidates": config.candidates,
        "redraws": config.redraws,
        "views": len(config.azimuths_deg),
        "size_px": config.size_px,
        "count": count or "all",
        "judge": bench.judge.name,
        "device": arguments.device,
        "weights": str(pipeline.transformer.dtype).removeprefix("torch."),
    }
    text = evaluate(bench, parts, header)
    said(text)
    if arguments.docs:
        update_docs(ROOT / "docs" / "evaluation.md", header, text)
    said(f"{bench.sampler.drawn} samples drawn now; {arguments.out / 'report.md'}")


if __name__ == "__main__":
    main()
