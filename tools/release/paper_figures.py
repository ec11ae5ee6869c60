# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

r"""Train the models of a benchmark suite and draw the paper's figures 4 to 7 from them.

    python tools/release/paper_figures.py --out build/figures
    python tools/release/paper_figures.py --config configs/benchmark/side_by_side.yaml --root ../shared/data \
        --out build/screw

Pictures of data sets whose licence forbids it must not be published. Figure 2 needs no training but a results file, see
``docs/figures.md``; figure 3 is part of every report.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from anomalib.engine import Engine
from matplotlib.figure import Figure
from PIL import Image

from anomalib_vmpfd.benchmark.run.build import build
from anomalib_vmpfd.benchmark.run.spec import runs
from anomalib_vmpfd.benchmark.suite import load_suite
from anomalib_vmpfd.plotting import HeatmapVisualizer, to_picture
from anomalib_vmpfd.plotting import figures as f


def main() -> None:
    """Draw all figures that the models allow."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", type=Path, default=Path("configs/benchmark/figures.yaml"))
    p.add_argument("--root", help="folder of the data, in place of the suite's")
    p.add_argument("--dataset", help="name of the suite's data set, the first one without it")
    p.add_argument("--category", help="category of it, the first one without it")
    p.add_argument("--images", type=int, default=3, help="rows of figures 4 to 6, at most one a defect kind")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    suite = load_suite(args.config)
    dataset = next(d for d in suite.datasets if args.dataset in {None, d.name})
    category = args.category or dataset.categories[0]
    suite = replace(
        suite,
        root=args.root or suite.root,
        datasets=[replace(dataset, categories=[category])],
        seeds=suite.seeds[:1],
    )
    models, datamodule = {}, None
    for spec in runs(suite):
        model, datamodule, trainer = build(spec)
        model.visualizer = None
        engine = Engine(**trainer | {"default_root_dir": args.out / "runs" / spec.key.model})
        engine.fit(model, datamodule=datamodule)
        engine.trainer.validate(model, datamodule=datamodule, verbose=False)
        models[spec.key.model] = model.eval()

    batches = list(datamodule.test_dataloader())
    images, labels = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("image", "gt_label"))
    masks = None if batches[0].gt_mask is None else torch.cat([batch.gt_mask for batch in batches])
    kinds = [Path(path).parent.name for batch in batches for path in batch.image_path]
    defects = list(dict.fromkeys(kind for kind, label in zip(kinds, labels, strict=True) if label))
    chosen = [kinds.index(kind) + 1 for kind in defects[: args.images]]  # the second of each kind
    shown = images[chosen]

    def save(figure: Figure, name: str) -> None:
        picture = to_picture(figure).convert("RGB")
        picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(args.out / name, optimize=True)
        print(args.out / name)

    good = torch.stack([datamodule.val_data[index].image for index in range(len(datamodule.val_data))])
    truth = None if masks is None else masks[chosen]
    save(f.heatmap_comparison(shown, models, good, truth), "figure4_heatmaps.png")
    seen = {label: model.explain(shown) for label, model in models.items() if hasattr(model, "explain")}
    redrawing = {label: models[label] for label, values in seen.items() if "reconstruction" in values}
    if redrawing:
        save(f.reconstruction_comparison(shown, redrawing), "figure5_reconstructions.png")
    features = {
        label: f.encoder_features(model, shown)
        for label, model in models.items()
        if getattr(model.model, "encoder", None) is not None
    }
    if features:
        save(f.feature_maps(shown, features), "figure6_features.png")
    first = next(iter(models.values()))
    save(f.random_results(images, labels, first, count=12), "figure7_random_results.png")

    # the picture that every test saves, for the first page of the documentation
    first.visualizer = HeatmapVisualizer(output_dir=args.out / "runs" / "pictures")
    Engine(**trainer | {"default_root_dir": args.out / "runs" / "test"}).test(first, datamodule=datamodule)
    pictures = sorted((args.out / "runs" / "pictures").rglob(f"{kinds[chosen[-1]]}/*.png"))
    (args.out / "heatmap.png").write_bytes(pictures[1].read_bytes())


if __name__ == "__main__":
    main()
