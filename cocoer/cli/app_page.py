"""The page of `cocoer app`: its parts, and which of the viewer's answers goes where."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from cocoer.errors import ViewError
from cocoer.report.draw import draw_result
from cocoer.report.figure import draw_case_study
from cocoer.report.notebook import image_in_html
from cocoer.report.person_html import map_rows, person_block, synthetic_band
from cocoer.report.saliency import attention_rows, saliency_rows
from cocoer.weights import places

if TYPE_CHECKING:
    from cocoer.inference.recognizer import Recognizer
    from cocoer.inference.viewer import Viewer
    from cocoer.outputs import PersonPrediction

CLEAN_EVERY_S, KEEP_S = 600, 3600
HINT = "<p>Upload an image, or choose an example.</p>"
NOBODY = "No person was found. Boxes of the people can be given as JSON."
LEGEND = (
    "Grad-CAM of each level before (theta) and after (theta~) the coordination, and the difference: red is more, blue is less. "
    "Below, the attention of head and body over the image."
)
ORDERED: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "viewer"}
"""Options of every event: one after another in order of arrival, or an older answer could replace a newer one."""

Changes = dict[Any, Any]
"""Components of the page -> their new values."""


def build(viewer: Viewer) -> gr.Blocks:
    """The page, ready to launch."""
    examples = sorted(str(path) for path in (places.SHIPPED / "test_imgs").glob("demo_*.jpg"))
    with gr.Blocks(title="CocoER", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_S)) as page:
        gr.Markdown(heading(viewer.recognizer))
        Page(viewer, examples).connect()
    return page


class Page:
    """The components of the page and the functions that answer its events. Made inside a `gr.Blocks` context."""

    def __init__(self, viewer: Viewer, examples: list[str]) -> None:
        self.viewer, self.examples = viewer, examples
        self.token, self.source = gr.State(""), gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self._inputs()
            with gr.Column(scale=2, min_width=320):
                self.message = gr.HTML(HINT, elem_id="message")
                with gr.Column(visible=False) as self.answer:
                    self.annotated = gr.Image(
                        label="People", format="png", interactive=False, buttons=["download", "fullscreen"],
                        alt_text="The image with the boxes and emotions of its people", elem_id="annotated",
                    )  # fmt: skip
        with gr.Column(visible=False) as self.details:
            self._details()
        self.seen = [
            self.message, self.token, self.source, self.annotated, self.person, self.answer, self.details
        ]  # fmt: skip

    def _inputs(self) -> None:
        self.image_file = gr.File(label="Upload an image", file_types=["image"], height=150, elem_id="image")
        with gr.Accordion("Boxes of the people (JSON, optional)", open=False):
            self.boxes_file = gr.File(label="Instead of detection", file_types=[".json"], height=120, elem_id="boxes")
        if self.examples:
            self.samples = gr.Dataset(
                label="Synthetic examples",
                components=[gr.Image(visible=False, type="filepath")],
                samples=[[path] for path in self.examples],
                type="index",
                elem_id="examples",
            )

    def _details(self) -> None:
        with gr.Row():
            self.person = gr.Dropdown([], label="Person", filterable=False, min_width=300, elem_id="person")
            self.emotion = gr.Dropdown(
                [("the most probable emotion", ""), *((name, name) for name in self.viewer.emotions)], value="",
                label="Emotion of the saliency maps", min_width=300, elem_id="emotion",
            )  # fmt: skip
        self.panel = gr.HTML(elem_id="panel", apply_default_css=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                self.block = gr.HTML(elem_id="levels", apply_default_css=False)
            with gr.Column(scale=2, min_width=320):
                self.maps = gr.HTML(elem_id="maps", apply_default_css=False)

    def connect(self) -> None:
        """Connect the events of the page with the functions that answer them."""
        image, boxes, examples = self.image_file, self.boxes_file, self.examples
        with_boxes = [*self.seen, boxes]
        self._then_show(image.upload(self.arrive, [image, boxes, self.source], with_boxes, **ORDERED))
        self._then_show(boxes.upload(self.arrive_boxes, [image, self.source, boxes], self.seen, **ORDERED))
        self._then_show(boxes.clear(lambda path: self.view(path, None), self.source, self.seen, **ORDERED))
        image.clear(lambda: self.view(None, None) | {boxes: None}, None, with_boxes, **ORDERED)
        if examples:
            cleared = self.samples.click(lambda: (None, None), None, [image, boxes], **ORDERED)
            chosen = cleared.then(lambda index: self.view(examples[index], None), self.samples, self.seen, **ORDERED)
            self._then_show(chosen)
        self._then_show(self.person.input(lambda: None, None, None, **ORDERED))
        self.emotion.input(self.explain, [self.token, self.person, self.emotion], self.maps, **ORDERED)

    def _then_show(self, event: Any) -> None:
        shown = event.then(self.show, [self.token, self.person], [self.block, self.panel], **ORDERED)
        shown.then(self.explain, [self.token, self.person, self.emotion], self.maps, **ORDERED)

    def view(self, image: str | None, boxes: str | None) -> Changes:
        """Recognise the people of an image, or empty the page where there is none."""
        nothing = {
            self.message: gr.HTML(HINT, visible=True),
            self.token: "",
            self.source: image,
            self.answer: gr.Column(visible=False),
            self.details: gr.Column(visible=False),
        }
        if image is None:
            return nothing
        try:
            viewed = self.viewer.view(image, boxes)
        except ViewError as err:
            return nothing | {self.message: gr.HTML(alert(err), visible=True)}
        people = viewed.result.persons
        choices = [(title_of(person), place) for place, person in enumerate(people)]
        return {
            self.message: gr.HTML(alert(NOBODY), visible=not people),
            self.token: viewed.token,
            self.source: image,
            self.annotated: draw_result(viewed.image, viewed.result),
            self.person: gr.Dropdown(choices, value=0 if people else None, label=f"Person ({len(people)} found)"),
            self.answer: gr.Column(visible=True),
            self.details: gr.Column(visible=bool(people)),
        }

    def arrive(self, image: str | None, boxes: str | None, before: str | None) -> Changes:
        """A new image. Boxes may be given before their image; boxes of the previous image are removed."""
        if before in (None, image):
            return self.view(image, boxes)
        return self.view(image, None) | {self.boxes_file: None}

    def arrive_boxes(self, image: str | None, shown: str | None, boxes: str | None) -> Changes:
        """Boxes for the uploaded image or the example; without an image they are kept until it is given."""
        return self.view(image or shown, boxes) if image or shown else {self.message: gr.skip()}

    def show(self, name: str, place: int | None) -> tuple[str, str]:
        """HTML of a person's levels and of the case-study panel."""
        if not name or place is None:
            return "", ""
        try:
            viewed = self.viewer.recall(name)
        except ViewError as err:
            return alert(err), ""
        drawn = draw_case_study(viewed.image, viewed.result, place)
        return person_block(viewed.result.persons[place]), image_in_html(drawn, "Case study, see the tables beside it")

    def explain(self, name: str, place: int | None, chosen: str) -> str:
        """HTML of a person's saliency and attention maps."""
        if not name or place is None:
            return ""
        try:
            viewed = self.viewer.recall(name)
            found = self.viewer.explain(name, place, chosen or None)
        except ViewError as err:
            return alert(err)
        boxes = viewed.result.persons[place].boxes
        assert boxes is not None, "a person that can be explained has boxes"
        said = f"{found.emotion}, fused probability {found.probability:.2f}"
        maps = saliency_rows(boxes.level_images(viewed.image), found) | attention_rows(viewed.image, found)
        band = synthetic_band(viewed.result.synthetic)
        return f"{band}<p><strong>{escape(said)}</strong>. {LEGEND}</p>{map_rows(maps)}"


def heading(recognizer: Recognizer) -> str:
    """Title and remarks, as Markdown."""
    about = recognizer.about
    note = f" **{about['note']}**" if about["note"] else ""
    return (
        f"# CocoER\n{synthetic_band(recognizer.synthetic)}\n\n"
        f"Emotions of the people in an image, by head, body and context. Weights {about['weights']} "
        f"({about['dataset']}, {about['mode']} mode) on {about['device']}.{note}\n\n"
        "The prediction is a guess about an expression, not a fact about a person. Struck out: labels of a level that the fused "
        "prediction does not share."
    )


def title_of(person: PersonPrediction) -> str:
    """A person in the list to choose from."""
    if person.status == "error":
        return f"{person.person}: not scored"
    by_name = person.probabilities["pred"]
    top = max(by_name, key=lambda name: by_name[name])
    return f"{person.person}: {top} {by_name[top]:.2f}"


def alert(text: object) -> str:
    """A message about something that did not work, read out by screen readers."""
    return f'<div class="alert" role="alert">{escape(str(text))}</div>'
