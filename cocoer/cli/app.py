"""Emotions in the browser: `python app.py`, then open the address that it prints. Wants `pip install 'cocoer[app]'`.

Drop an image, choose a person, see what each level says, how the levels competed and where they look. Images are decoded and
recognised on this machine; nothing is sent elsewhere, and what was uploaded is deleted when the program ends (or after an hour).
Exit 0: stopped. 2: wrong usage or something needed is missing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from cocoer.cli.talk import add_detector
from cocoer.errors import MissingExtra
from cocoer.weights import places

if TYPE_CHECKING:
    import gradio as gr

    from cocoer.inference.recognizer import Recognizer
    from cocoer.inference.viewer import Viewer
    from cocoer.outputs import PersonPrediction

CLEAN_EVERY_S, KEEP_S = 600, 3600
HINT = "<p>Drop an image, or choose an example.</p>"
NOBODY = "No person was found. Boxes of the people can be given as JSON."
LEGEND = (
    "Grad-CAM of each level before (theta) and after (theta~) the coordination, and the difference: red is more, blue is less. "
    "Below, the attention of head and body over the image."
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")

STYLE = """
.alert { padding: 10px 14px; border-radius: 8px; border: 1px solid #d99; background: #fdecea; color: #8c1d18; }
.dark .alert { background: #4a1f1c; color: #ffb4ab; border-color: #8c3a34; }
.gradio-container { overflow-wrap: anywhere; }
#levels td, #levels th, #levels tr { border-color: var(--line); }
#panel img { min-width: 860px; width: 100%; border-radius: 8px; } #panel > div { overflow-x: auto; }
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="cocoer app", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--config", help="YAML config; default: the one inside the checkpoint")
    p.add_argument(
        "--checkpoint",
        help="weights (.safetensors file or folder), release, zero-shot or demo; default: as setup chose, else demo",
    )
    add_detector(p)
    p.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    p.add_argument("--set", nargs="+", default=[], action="extend", metavar="KEY=VALUE", dest="overrides")
    p.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only). With another one everybody who reaches it can "
        "send images; there is no password",
    )
    p.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    p.add_argument("--max-upload", type=int, default=20, metavar="MB", help="largest file that is taken (default: 20)")
    args = p.parse_args(argv)
    if args.max_upload < 1 or not 1 <= (args.port or 1) <= 65535:
        p.error("--max-upload wants at least 1 and --port 1 to 65535")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)
    try:
        return serve(args)
    except (ValueError, OSError, RuntimeError) as err:  # config, weights, device, address
        print(f"cocoer app: error: {err}", file=sys.stderr)
        return 2


def load(args: argparse.Namespace) -> Recognizer:
    """The recogniser that the command line asks for; the shipped demonstration's where nothing else is named."""
    from cocoer.inference.recognizer import Recognizer

    overrides = [*args.overrides, "inference.backend=torch"]  # an exported file cannot be explained
    return Recognizer.from_options(args.config, args.checkpoint, args.device, overrides, args.detector)


def serve(args: argparse.Namespace) -> int:
    """Load, show, wait until Ctrl-C or a signal to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="cocoer-app-", ignore_cleanup_errors=True) as uploads:
        prepare_gradio(uploads)
        from cocoer.inference.viewer import Viewer

        viewer = Viewer(load(args))
        if args.host not in LOOPBACK:
            print(f"cocoer app: listening on {args.host}: whoever reaches it can use the page", file=sys.stderr)
        page = build(viewer)
        try:
            print(f"open {launch(page, args.host, args.port, args.max_upload)} (Ctrl-C ends it)", flush=True)
            page.block_thread()
        finally:
            page.close(verbose=False)
    return 0


def prepare_gradio(uploads: str) -> None:
    """Checks that gradio is there, switches off everything by which it would talk to the internet, and says where files go.

    Raises MissingExtra with the command that installs it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = uploads
    try:
        import gradio  # noqa: F401
    except ImportError as err:
        raise MissingExtra("app", err) from None


def launch(page: gr.Blocks, host: str, port: int | None, max_upload: int) -> str:
    """Start the server in threads of its own; returns its address. Never shared, no run history in the browser."""
    import gradio as gr
    from starlette.middleware import Middleware

    from cocoer.cli.app_guard import AppGuard
    from cocoer.report.person_html import style as person_style

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    _, address, _ = page.queue(default_concurrency_limit=1, max_size=32, api_open=False).launch(
        server_name=host,
        server_port=port,
        quiet=True,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        show_error=False,
        max_file_size=max_upload * 2**20,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        theme=gr.themes.Default(**fonts),
        css=STYLE + person_style(),
        app_kwargs={"middleware": [Middleware(AppGuard, hosts=(host,))]},
    )
    return str(address)


def build(viewer: Viewer) -> gr.Blocks:
    """The page: its parts, and which of the viewer's answers goes where."""
    import gradio as gr

    from cocoer.errors import ViewError
    from cocoer.report.draw import draw_result
    from cocoer.report.figure import draw_case_study
    from cocoer.report.person_html import image_in_html, map_rows, person_block, synthetic_band
    from cocoer.report.saliency import attention_rows, level_images, saliency_rows

    examples = sorted((places.SHIPPED / "test_imgs").glob("demo_*.jpg"))

    def view(image: str | None, boxes: str | None) -> dict[Any, Any]:
        nothing = {
            message: gr.HTML(HINT, visible=True),
            token: "",
            source: image,
            answer: closed(),
            details: closed(),
        }
        if image is None:
            return nothing
        try:
            viewed = viewer.view(image, boxes)
        except ViewError as err:
            return nothing | {message: gr.HTML(alert(err), visible=True)}
        people = viewed.result.persons
        choices = [(title_of(person), place) for place, person in enumerate(people)]
        return {
            message: gr.HTML(alert(NOBODY), visible=not people),
            token: viewed.token,
            source: image,
            annotated: draw_result(viewed.image, viewed.result),
            person: gr.Dropdown(choices, value=0 if people else None, label=f"Person ({len(people)} found)"),
            answer: gr.Column(visible=True),
            details: gr.Column(visible=bool(people)),
        }

    def arrive(image: str | None, boxes: str | None, before: str | None) -> dict[Any, Any]:
        """Boxes may come before their image; those of the image that was shown before do not fit the new one."""
        if before in (None, image):
            return view(image, boxes)
        return view(image, None) | {boxes_file: None}

    def arrive_boxes(image: str | None, shown: str | None, boxes: str | None) -> Any:
        """Boxes for the image that was dropped, or for the example; without one they wait for it."""
        return view(image or shown, boxes) if image or shown else {message: gr.skip()}

    def show(name: str, place: int | None) -> tuple[str, str]:
        if not name or place is None:
            return "", ""
        try:
            viewed = viewer.recall(name)
        except ViewError as err:
            return alert(err), ""
        drawn = draw_case_study(viewed.image, viewed.result, place)
        return person_block(viewed.result.persons[place]), image_in_html(drawn, "Case study, see the tables beside it")

    def explain(name: str, place: int | None, chosen: str) -> str:
        if not name or place is None:
            return ""
        try:
            viewed = viewer.recall(name)
            found = viewer.explain(name, place, chosen or None)
        except ViewError as err:
            return alert(err)
        boxes = viewed.result.persons[place].boxes
        assert boxes is not None, "a person that can be explained has boxes"
        said = f"{found.emotion}, fused probability {found.probability:.2f}"
        maps = saliency_rows(level_images(viewed.image, boxes), found) | attention_rows(viewed.image, found)
        band = synthetic_band(viewed.result.synthetic)
        return f"{band}<p><strong>{escape(said)}</strong>. {LEGEND}</p>{map_rows(maps)}"

    def closed() -> Any:
        return gr.Column(visible=False)

    with gr.Blocks(title="CocoER", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_S)) as page:
        gr.Markdown(heading(viewer.recognizer))
        token, source = gr.State(""), gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                image_file = gr.File(label="Drop an image", file_types=["image"], height=150, elem_id="image")
                with gr.Accordion("Boxes of the people (JSON, optional)", open=False):
                    boxes_file = gr.File(
                        label="In place of detection", file_types=[".json"], height=120, elem_id="boxes"
                    )
                if examples:
                    samples = gr.Dataset(
                        label="Synthetic examples",
                        components=[gr.Image(visible=False, type="filepath")],
                        samples=[[str(path)] for path in examples],
                        type="index",
                        elem_id="examples",
                    )
            with gr.Column(scale=2, min_width=320):
                message = gr.HTML(HINT, elem_id="message")
                with gr.Column(visible=False) as answer:
                    annotated = gr.Image(
                        label="People", format="png", interactive=False, buttons=["download", "fullscreen"],
                        alt_text="The image with the boxes and emotions of its people", elem_id="annotated",
                    )  # fmt: skip
        with gr.Column(visible=False) as details:
            with gr.Row():
                person = gr.Dropdown([], label="Person", filterable=False, min_width=300, elem_id="person")
                emotion = gr.Dropdown(
                    [("the most probable emotion", ""), *((name, name) for name in viewer.emotions)], value="",
                    label="Where the levels look for", min_width=300, elem_id="emotion",
                )  # fmt: skip
            panel = gr.HTML(elem_id="panel", apply_default_css=False)
            with gr.Row(equal_height=False):
                with gr.Column(scale=1, min_width=300):
                    block = gr.HTML(elem_id="levels", apply_default_css=False)
                with gr.Column(scale=2, min_width=320):
                    maps = gr.HTML(elem_id="maps", apply_default_css=False)

        seen = [message, token, source, annotated, person, answer, details]
        # One after another in the order in which they came: else an older answer could take the place of a newer one.
        ordered: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "viewer"}

        def chain(event: Any) -> None:
            event.then(show, [token, person], [block, panel], **ordered).then(
                explain, [token, person, emotion], maps, **ordered
            )

        chain(image_file.upload(arrive, [image_file, boxes_file, source], [*seen, boxes_file], **ordered))
        chain(boxes_file.upload(arrive_boxes, [image_file, source, boxes_file], seen, **ordered))
        chain(boxes_file.clear(lambda path: view(path, None), source, seen, **ordered))
        image_file.clear(lambda: view(None, None) | {boxes_file: None}, None, [*seen, boxes_file], **ordered)
        if examples:
            cleared = samples.click(lambda: (None, None), None, [image_file, boxes_file], **ordered)
            chain(cleared.then(lambda index: view(str(examples[index]), None), samples, seen, **ordered))
        chain(person.input(lambda: None, None, None, **ordered))
        emotion.input(explain, [token, person, emotion], maps, **ordered)
    return page


def heading(recognizer: Recognizer) -> str:
    """Title and remarks, as Markdown."""
    from cocoer.report.person_html import synthetic_band

    about = recognizer.about
    note = f" **{about['note']}**" if about["note"] else ""
    return (
        f"# CocoER\n{synthetic_band(recognizer.synthetic)}\n\n"
        f"Emotions of the people in an image, by head, body and context. Weights {about['weights']} "
        f"({about['dataset']}, {about['mode']} mode) on {about['device']}.{note}\n\n"
        "What comes out is a guess about an expression, not a fact about a person. Struck out: what a level says and the answer "
        "does not share."
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
