"""What a person does on the page, in headless Chromium, with the built-in model behind it."""

import base64
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from serve_process import ServeProcess, serving

pytest.importorskip("uvicorn")
api = pytest.importorskip("playwright.sync_api")

Visit = Callable[..., Any]
CHART, COVER, PAIR = (
    "Explain this chart.",
    "Help me get the title and author information of this book?",
    "What is difference in this two images?",
)
FILES = """async names => {
  const transfer = new DataTransfer();
  for (const [name, data] of names)
    transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, { type: "image/png" }));
  return transfer;
}"""


def expect(locator: Any) -> Any:
    return api.expect(locator)


def transfer_of(page: Any, *names: str) -> Any:
    """Example images as a browser hands them to a page."""
    files = [(name, base64.b64encode((ROOT / "examples" / name).read_bytes()).decode()) for name in names]
    return page.evaluate_handle(FILES, files)


def drop(page: Any, *names: str) -> None:
    page.dispatch_event("main", "drop", {"dataTransfer": transfer_of(page, *names)})


def thumbnails(page: Any) -> Any:
    return page.get_by_role("list", name="Images for your question").get_by_role("listitem")


def ask(page: Any, question: str) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def answers(page: Any) -> Any:
    return page.locator(".answer")


def wait_for_answer(page: Any, number: int = 1) -> str:
    """The text of the latest of so many answers, once it is finished."""
    expect(page.get_by_role("button", name="Copy")).to_have_count(number)
    text: str = answers(page).last.inner_text()
    return text


def wait_until(page: Any, condition: str) -> None:
    """Not playwright's own wait, which the page's policy forbids: it evaluates text."""
    deadline = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def test_a_dropped_image_is_shown_with_its_cost_and_answered(visit: Visit, cli_answers: dict[str, str]) -> None:
    page = visit()
    drop(page, "chart.png")
    expect(thumbnails(page)).to_contain_text("313 tokens")
    ask(page, CHART)
    assert wait_for_answer(page) == cli_answers[CHART]
    assert re.search(r"prompt\s+3\d\d tokens, 313 of them images, \d+ cached", page.locator(".meter").inner_text())
    assert re.search(r"TTFT\s+[0-9.]+ s, of which vision \+ prefill [0-9.]+ s", page.locator(".meter").inner_text())


def test_pasted_images_are_compared(visit: Visit, cli_answers: dict[str, str]) -> None:
    page = visit()
    page.get_by_role("textbox", name="Question").focus()
    files = transfer_of(page, "before.png", "after.webp")
    page.evaluate("files => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: files }))", files)
    expect(thumbnails(page)).to_have_count(2)
    expect(thumbnails(page).nth(1)).to_contain_text("tokens")
    ask(page, PAIR)
    assert wait_for_answer(page) == cli_answers[PAIR]


def test_chosen_files_that_cannot_be_read_are_named_and_not_sent(visit: Visit, tmp_path: Path) -> None:
    page = visit(expected_errors=1)
    (tmp_path / "notes.png").write_text("this is text")
    page.locator("#files").set_input_files([tmp_path / "notes.png", ROOT / "examples" / "cover.png"])
    expect(thumbnails(page).first).to_contain_text("notes.png is")
    ask(page, COVER)
    expect(page.get_by_role("alert")).to_have_text("One of the images cannot be read; remove it.")
    page.get_by_role("button", name="Remove notes.png").click()
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "ALONE" in wait_for_answer(page)


def test_the_camera_takes_a_photograph(visit: Visit) -> None:
    page = visit(permissions=["camera"])
    page.get_by_role("button", name="Take a photograph").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    wait_until(page, "document.getElementById('video').videoWidth > 0")
    page.get_by_role("button", name="Take it").click()
    expect(thumbnails(page)).to_contain_text("photograph.jpg")
    expect(thumbnails(page)).to_contain_text("pixels")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_crops_dial_changes_what_an_image_costs_and_what_is_sent(visit: Visit) -> None:
    page = visit()
    drop(page, "cover.png")
    dial = page.get_by_role("slider", name="Crops of cover.png")
    expect(thumbnails(page)).to_contain_text("1 crop and the whole")
    dial.press("ArrowRight")
    dial.press("ArrowRight")
    dial.press("ArrowRight")
    expect(dial).to_have_attribute("aria-valuetext", re.compile("^4: "))
    cost = re.search(r"(\d+) tokens", thumbnails(page).inner_text())
    assert cost
    ask(page, COVER)
    wait_for_answer(page)
    expect(page.locator(".meter")).to_contain_text(f"{cost[1]} of them images")


def test_an_example_is_one_click_away(visit: Visit, cli_answers: dict[str, str]) -> None:
    page = visit()
    page.get_by_role("button", name=COVER).click()
    expect(thumbnails(page)).to_contain_text("tokens")
    page.keyboard.press("Enter")  # the button that asks has the focus
    assert wait_for_answer(page) == cli_answers[COVER]


def test_fields_make_the_answer_a_table_and_its_json_can_be_saved(visit: Visit) -> None:
    page = visit(accept_downloads=True)
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    page.get_by_text("Format and options").click()
    page.get_by_label("Answer as a table").fill("title str, pages int?")
    expect(page.locator("#warning")).to_contain_text("nano has not learned")
    ask(page, "Read the cover.")
    wait_for_answer(page)
    assert page.locator(".answer th").all_inner_texts() == ["title", "pages"]
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download as JSON").click()
    found = json.loads(Path(saved.value.path()).read_text())
    assert set(found["data"]) == {"title", "pages"}
    assert (found["model"], found["question"], found["finish_reason"]) == ("nano", "Read the cover.", "stop")
    assert found["images"] == [{"name": "cover.png", "width": 448, "height": 566, "num_crops": "1"}]


def test_wrong_fields_are_an_error_and_the_question_stays(visit: Visit) -> None:
    page = visit(expected_errors=1)
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    page.get_by_text("Format and options").click()
    page.get_by_label("Answer as a table").fill("year number")
    ask(page, "Read the cover.")
    expect(page.get_by_role("alert")).to_contain_text("year number")
    assert page.get_by_role("textbox", name="Question").input_value() == "Read the cover."
    expect(thumbnails(page)).to_have_count(1)


LONG = json.dumps({"type": "string", "pattern": "^[a-z]{9000}$"})


def test_stop_ends_an_answer_and_keeps_what_there_is(visit: Visit, server: ServeProcess) -> None:
    page = visit()
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    page.get_by_text("Format and options").click()
    page.get_by_label("Answer as a table").fill(LONG)
    page.get_by_label("Most tokens").fill("3000")
    ask(page, "Go on.")
    expect(answers(page)).to_contain_text(re.compile("[a-z]{5}"))
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("You stopped this answer.")).to_be_visible()
    deadline = time.monotonic() + 60
    while "phi3v_running 0.0" not in server.get("/metrics")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    page.get_by_role("button", name="Edit and ask again").click()
    assert page.get_by_role("textbox", name="Question").input_value() == "Go on."
    expect(thumbnails(page)).to_have_count(1)


def test_a_server_that_is_lost_is_an_error_at_the_answer(visit: Visit) -> None:
    with serving() as lost:
        page = visit(lost.url, expected_errors=10)
        drop(page, "cover.png")
        expect(thumbnails(page)).to_contain_text("tokens")
        page.get_by_text("Format and options").click()
        page.get_by_label("Answer as a table").fill(LONG)
        page.get_by_label("Most tokens").fill("3000")
        ask(page, "Go on.")
        expect(answers(page)).to_contain_text(re.compile("[a-z]{5}"))
        lost.process.kill()
        expect(page.locator("article")).to_contain_text("The server was lost.")
        expect(page.get_by_role("button", name="Edit and ask again")).to_be_visible()


def test_a_wrong_option_is_shown_and_nothing_is_sent(visit: Visit) -> None:
    page = visit()
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    page.get_by_text("Format and options").click()
    page.get_by_label("Most tokens").fill("0")
    page.get_by_text("Format and options").click()
    ask(page, COVER)
    expect(page.get_by_label("Most tokens")).to_be_visible()
    expect(answers(page)).to_have_count(0)


def test_a_reload_keeps_the_conversation_and_it_goes_on(visit: Visit) -> None:
    page = visit()
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    ask(page, COVER)
    first = wait_for_answer(page)
    page.reload()
    assert wait_for_answer(page) == first
    ask(page, COVER)
    wait_for_answer(page, 2)
    assert re.search(r"[1-9]\d* cached", page.locator(".meter").last.inner_text())
    page.get_by_role("button", name="New conversation").click()
    expect(answers(page)).to_have_count(0)
    page.get_by_role("button", name="History").click()
    page.get_by_role("navigation").get_by_role("button", name=COVER, exact=True).click()
    expect(answers(page)).to_have_count(2)


def test_conversations_can_be_deleted(visit: Visit) -> None:
    page = visit()
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    ask(page, COVER)
    wait_for_answer(page)
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name=f"Delete {COVER}").click()
    expect(page.get_by_text("There are none yet.")).to_be_visible()
    page.reload()
    expect(answers(page)).to_have_count(0)


def test_a_conversation_that_is_deleted_while_it_runs_stays_deleted(visit: Visit) -> None:
    page = visit()
    page.on("dialog", lambda dialog: dialog.accept())
    for _ in range(2):
        drop(page, "cover.png")
        expect(thumbnails(page)).to_contain_text("tokens")
        ask(page, COVER)
        wait_for_answer(page)
        page.get_by_role("button", name="New conversation").click()
    page.route("**/v1/chat/completions", lambda route: None)  # never answered
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    ask(page, COVER)
    expect(page.locator("article")).to_have_count(1)
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name="Delete all").click()
    expect(page.get_by_text("There are none yet.")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    page.reload()
    page.get_by_role("button", name="History").click()
    expect(page.get_by_text("There are none yet.")).to_be_visible()


def test_what_the_model_says_is_text(visit: Visit) -> None:
    page = visit()
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            content_type="text/event-stream",
            body='data: {"choices":[{"index":0,"delta":{"content":"<img src=x onerror=alert(1)>"},'
            '"finish_reason":null}]}\n\ndata: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
            'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":'
            '{"image_tokens":0,"cached_tokens":0}},"timings":{"ttft_s":1,"prefill_s":1,"decode_s":0,"tpot_s":0,'
            '"tokens_per_s":0,"total_s":1}}\n\ndata: [DONE]\n\n',
        ),
    )
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    ask(page, COVER)
    assert wait_for_answer(page) == "<img src=x onerror=alert(1)>"
    assert answers(page).locator("img").count() == 0


def test_a_long_prefill_shows_the_time_and_what_it_is_going_to_take(visit: Visit) -> None:
    page = visit()
    page.evaluate("localStorage.setItem('phi3v.speed.nano.fp16.cpu', '0.1')")
    page.route("**/v1/chat/completions", lambda route: None)  # never answered
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("313 tokens")
    ask(page, COVER)
    expect(page.locator("article")).to_contain_text(re.compile(r"\(313 tokens\): [0-9.]+ s of about 31.3 s"))
    page.keyboard.press("Escape")
    expect(page.get_by_text("You stopped this answer.")).to_be_visible()


def test_the_key_is_asked_for_once(visit: Visit) -> None:
    with serving("--api-key", "secret") as locked:
        page = visit(locked.url, expected_errors=10)
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_label("API key")).to_have_value("")
        page.get_by_label("API key").fill("secret")
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#model")).to_contain_text("nano")
        page.reload()
        expect(page.locator("#model")).to_contain_text("nano")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.close()


def test_the_key_in_the_fragment_is_taken_and_cleared(visit: Visit) -> None:
    with serving("--api-key", "a b&c") as locked:
        page = visit(f"{locked.url}#key=a%20b%26c")
        expect(page.locator("#model")).to_contain_text("nano")
        assert "key" not in page.url
        page.close()  # before its server ends, whose images it may still be loading


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1100, 900), (360, 740)])
def test_no_serious_violation_of_accessibility(visit: Visit, scheme: str, size: tuple[int, int]) -> None:
    axe = os.environ.get("PHI3V_AXE")
    if axe is None:
        pytest.skip("$PHI3V_AXE does not name axe-core's axe.min.js")
    page = visit(color_scheme=scheme, viewport={"width": size[0], "height": size[1]}, bypass_csp=True)
    page.add_script_tag(path=axe)
    page.get_by_text("Format and options").click()
    page.get_by_label("Answer as a table").fill("title str")
    drop(page, "cover.png")
    expect(thumbnails(page)).to_contain_text("tokens")
    found = serious(page)
    ask(page, "Read the cover.")
    wait_for_answer(page)
    page.get_by_role("button", name="History").click()
    assert found + serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def serious(page: Any) -> list[str]:
    results = page.evaluate("axe.run()")
    return [
        f"{violation['id']}: {node['html']}"
        for violation in results["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_the_first_paint_comes_soon(visit: Visit) -> None:
    page = visit()
    wait_until(page, "performance.getEntriesByName('first-contentful-paint').length > 0")
    [paint] = page.evaluate("performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)")
    print(f"first contentful paint after {paint:.0f} ms")
    assert paint < 10_000  # 0.5 s on a quiet machine; this one may be busy
