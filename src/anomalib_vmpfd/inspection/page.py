# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The page: what is on it, and which handler each part calls."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from .handlers import WHOLE, Handlers
from .judge import ANOMALY_MAP
from .session import ORDERS

STYLE = Path(__file__).with_name("page.css")
STEP = 0.0001  # scores lie close to 0.5
QUEUE = 256  # a hundred uploads at once are answered, thousands are told that it is full


def theme() -> gr.themes.Base:
    """Gradio's default look with the fonts of the system, none is fetched from elsewhere, and enough contrast."""
    look = gr.themes.Default(
        primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    )
    return look.set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        block_info_text_color="*neutral_600",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )


class InspectPage:
    """The page of one model.

    Args:
        handlers (Handlers): What it calls.

    Attributes:
        blocks (gr.Blocks): To be launched with :func:`theme` and the style sheet ``STYLE``.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        name = handlers.judge.path.name
        self.blocks = gr.Blocks(title=f"Inspect: {name}", analytics_enabled=False, fill_width=True)
        self.blocks.queue(max_size=QUEUE, api_open=False)
        with self.blocks:
            gr.Markdown(f"# Inspect parts\n\n`{name}`")
            self._index = gr.State(None)
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self._lay_out_all_images()
                with gr.Column(scale=5, min_width=300):
                    self._lay_out_one_image()
            with gr.Accordion("Keep results", open=False, elem_id="results"):
                self._lay_out_results()
            self._connect()

    def _lay_out_all_images(self) -> None:
        self._files = gr.File(label="Drop images here", file_count="multiple", height=140, elem_id="files")
        with gr.Row():
            self._folder = gr.UploadButton("Choose a folder", file_count="directory", size="sm", min_width=120)
            self._clear = gr.Button("Remove all images", size="sm", min_width=120, elem_id="clear")
        self._threshold = gr.Slider(
            minimum=0,
            maximum=1,
            value=self._handlers.judge.threshold,
            step=STEP,
            label="Threshold",
            info=f"Scores from it on are anomalous. The model's own is {self._handlers.judge.threshold:.4f}.",
            buttons=[],  # a reset would not be told to the handlers
            elem_id="threshold",
        )
        self._summary = gr.HTML(elem_id="summary")
        self._histogram = gr.HTML(elem_id="histogram")

    def _lay_out_one_image(self) -> None:
        with gr.Row(equal_height=True):
            orders = [(title, name) for name, title in ORDERS.items()]
            self._order = gr.Dropdown(
                orders, value="added", label="Step through", filterable=False, min_width=220, elem_id="order"
            )
            self._position = gr.Number(0, label="Image", precision=0, minimum=0, min_width=90, elem_id="position")
        with gr.Row():
            self._previous = gr.Button("Previous", size="sm", min_width=90, elem_id="previous")
            self._next = gr.Button("Next", variant="primary", size="sm", min_width=90, elem_id="next")
        self._verdict = gr.HTML(elem_id="verdict")
        self._pictures = gr.HTML(elem_id="pictures")
        with gr.Row():
            panels = [(title, name) for name, title in self._handlers.judge.titles.items()]
            several = len(panels) > 1
            self._panel = gr.Radio(
                panels, value=ANOMALY_MAP, label="Map", visible=several, min_width=220, elem_id="panel"
            )
            self._zoom = gr.Dropdown(
                [WHOLE], value=WHOLE, label="Zoom to", filterable=False, min_width=220, elem_id="zoom"
            )
        self._mark = gr.Checkbox(
            label="Wrongly judged", info="Its opposite counts as true from then on.", elem_id="mark"
        )

    def _lay_out_results(self) -> None:
        with gr.Row():
            self._rows = gr.Button("Rows as CSV", size="md", elem_id="rows")
            self._keep = gr.Button("Keep this threshold in a new file", size="md", elem_id="keep")
        self._rate, self._recalibrate = None, None
        if (rate := self._handlers.judge.image_fpr) is not None:
            with gr.Row(equal_height=True):
                self._rate = gr.Number(rate, label="False-positive rate", minimum=0, maximum=1, step=0.01)
                self._recalibrate = gr.Button(
                    "Set thresholds anew from the good images, in a new file", size="md", elem_id="recalibrate"
                )
        self._written = gr.File(label="Rows to download", interactive=False, visible=False, elem_id="written")
        self._said = gr.Textbox(label="What was done", lines=2, max_lines=8, interactive=False, elem_id="said")

    def _connect(self) -> None:
        # all of these are for the page alone, no interface to program against
        def on(event: Callable[..., Any], *what: Any, **how: Any) -> Any:  # noqa: ANN401
            return event(*what, api_visibility="private", show_progress="hidden", **how)

        one_at_a_time = {"concurrency_id": "judge", "concurrency_limit": 1}
        overview = [self._summary, self._histogram, self._threshold]
        shown = [self._index, self._position, self._verdict, self._mark, self._pictures, self._zoom]
        view = [self._threshold, self._order, self._panel]
        everything = [*overview, *shown]

        begun = on(self.blocks.load, self._begin, view, everything)
        on(begun.then, self._judge, [self._index, *view], everything, **one_at_a_time)
        for upload in (self._files, self._folder):
            on(upload.upload, self._added, [upload, self._index, *view], [upload, *everything], **one_at_a_time)
        on(self._clear.click, self._cleared, view, everything)
        on(
            self._threshold.input,
            self._moved,
            [self._index, *view],
            [self._summary, self._histogram, self._position, self._verdict],
            trigger_mode="always_last",
        )
        on(self._order.input, partial(self._step, to=1), [self._index, *view], shown)
        on(self._next.click, partial(self._step, by=1), [self._index, *view], shown)
        on(self._previous.click, partial(self._step, by=-1), [self._index, *view], shown)
        on(self._position.submit, self._go, [self._position, *view], shown)
        zoomed = [self._index, *view, self._zoom]
        on(self._panel.input, self._looked, zoomed, [self._pictures])
        on(self._zoom.input, self._looked, zoomed, [self._pictures])
        on(
            self._mark.input,
            self._marked,
            [self._index, self._mark, *view],
            [self._summary, self._histogram, self._position, self._verdict],
        )
        on(self._rows.click, self._exported, [self._threshold], [self._written, self._said])
        on(self._keep.click, partial(_said, self._handlers.keep_threshold), [self._threshold], [self._said])
        if self._recalibrate is not None:
            recalibrate = partial(_said, self._handlers.recalibrate)
            on(self._recalibrate.click, recalibrate, [self._rate], [self._said], **one_at_a_time)

    def _added(
        self, files: list[str] | None, index: int | None, threshold: float, order: str, panel: str
    ) -> Iterator[tuple[Any, ...]]:
        """Judge uploaded files, and empty the field for the next ones."""
        self._handlers.add(files or [])
        for values in self._judge(index, threshold, order, panel):
            yield None, *values

    def _judge(self, index: int | None, threshold: float, order: str, panel: str) -> Iterator[tuple[Any, ...]]:
        known = len(self._handlers.session.refused)
        shown = index
        for first in self._handlers.judge_waiting():
            shown = shown if first is None else first
            yield *self._all(threshold), *self._one_or_place(first, shown, threshold, order, panel)
        yield *self._all(threshold), *self._one_or_place(None, shown, threshold, order, panel)
        for message in self._handlers.session.refused[known:][:3]:
            gr.Warning(message)

    def _one_or_place(
        self, index: int | None, shown: int | None, threshold: float, order: str, panel: str
    ) -> list[Any]:
        """Another image, or only the place of the one that is shown, as there are more now."""
        if index is not None:
            return self._one(index, threshold, order, panel)
        return [gr.skip(), self._place(shown, threshold, order), *[gr.skip()] * 4]

    def _begin(self, threshold: float, order: str, panel: str) -> tuple[Any, ...]:
        first = self._handlers.at(1, order, threshold)
        return *self._all(threshold), *self._one(first, threshold, order, panel)

    def _cleared(self, threshold: float, order: str, panel: str) -> tuple[Any, ...]:
        self._handlers.clear()
        return self._begin(threshold, order, panel)

    def _moved(self, index: int | None, threshold: float, order: str, panel: str) -> tuple[Any, ...]:
        """Another threshold: nothing is judged or drawn again but numbers."""
        del panel
        said = self._handlers.verdict(index, threshold)
        return *self._all(threshold)[:2], self._place(index, threshold, order), said

    def _marked(self, index: int | None, wrong: bool, threshold: float, order: str, panel: str) -> tuple[Any, ...]:
        if index is not None:
            self._handlers.session.mark(index, threshold, wrong)
        return self._moved(index, threshold, order, panel)

    def _step(
        self, index: int | None, threshold: float, order: str, panel: str, by: int = 0, to: int | None = None
    ) -> list[Any]:
        position, _ = self._handlers.position(index, order, threshold)
        # from outside of the list its first image comes next
        target = to or (position + by if position else 1)
        return self._one(self._handlers.at(target, order, threshold), threshold, order, panel)

    def _go(self, position: int, threshold: float, order: str, panel: str) -> list[Any]:
        return self._one(self._handlers.at(max(1, position), order, threshold), threshold, order, panel)

    def _looked(self, index: int | None, threshold: float, order: str, panel: str, zoom: str) -> str:
        return self._handlers.show(index, order, threshold, panel, zoom).pictures

    def _all(self, threshold: float) -> list[Any]:
        """Values of the parts that show all images; the slider covers their scores."""
        summary, histogram, (lowest, highest) = self._handlers.overview(threshold)
        return [summary, histogram, gr.update(minimum=lowest, maximum=highest)]

    def _one(self, index: int | None, threshold: float, order: str, panel: str) -> list[Any]:
        """Values of the parts that show one image."""
        seen = self._handlers.show(index, order, threshold, panel)
        zoom = gr.update(choices=seen.regions, value=WHOLE)
        place = self._place(seen.place, threshold, order)
        return [seen.place, place, seen.verdict, seen.marked, seen.pictures, zoom]

    def _place(self, index: int | None, threshold: float, order: str) -> Any:  # noqa: ANN401
        position, total = self._handlers.position(index, order, threshold)
        return gr.update(value=position, label=f"Image, of {total}")

    def _exported(self, threshold: float) -> tuple[Any, str]:
        try:
            path = self._handlers.rows_file(threshold)
        except ValueError as error:
            return gr.update(visible=False), str(error)
        return gr.update(value=str(path), visible=True), f"{path.name} can be downloaded above."


def _said(handler: Callable[[float], str], value: float) -> str:
    """What a handler says, or what is wrong."""
    try:
        return handler(value)
    except (ValueError, OSError) as error:
        return str(error)
