"""Emotions in the browser: `python app.py`, then open the address that it prints. Wants `pip install 'cocoer[app]'`.

Upload an image and select a person to see the prediction of each level, the competition, and saliency maps. Images are processed
on this machine only; uploads are deleted after an hour and when the program ends.
Exit 0: stopped. 2: wrong usage or something needed is missing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.errors import MissingExtra

if TYPE_CHECKING:
    import gradio as gr

    from cocoer.inference.recognizer import Recognizer

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
    p = command_parser("app", __doc__, allow_abbrev=False)
    add_options(p, "--config", "--checkpoint", "--detector", "--device", "--set")
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


@reports("app", usage=(ValueError, OSError, RuntimeError), failed=())
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return serve(parse(argv))


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
        from cocoer.cli.app_page import build
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
    """Check that gradio is installed, disable its network access, and set its folder for uploads.

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
