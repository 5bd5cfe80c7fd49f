"""The monitor's page in a real browser: it loads, moves, sorts, filters, is used by keyboard, and fits a phone.

The screenshots in build/screenshots are for the eye: docs/images/monitor has the chosen ones.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.monitored import FakeProcess
from tests.support.served_page import ServedPage, served
from tests.support.waiting import wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TOKEN = "a-token-of-24-characters"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        # a container's /dev/shm may be small, and its root user has no sandbox
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        found = started.chromium.launch(executable_path=path, args=options)
        yield found
        found.close()


@contextmanager
def opened(browser: Any, url: str, viewport: dict[str, int] = DESK, *, is_live: bool = True, **options: Any) -> Any:
    """Open the page, and fail at the end if its console has an error or a warning."""
    context = browser.new_context(viewport=viewport, **options)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(url)
    if is_live:
        page.wait_for_selector("#connection[data-state=live]")
    try:
        yield page
    finally:
        context.close()
    assert told == []


def until(page: Any, condition: Callable[[], object]) -> None:
    """Wait until the condition holds. The page's own protection forbids to evaluate text in it again and again."""
    end_s = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < end_s
        page.wait_for_timeout(50)


def shoot(page: Any, name: str, *, whole: bool = False) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=whole)


def scroll(page: Any, selector: str) -> None:
    page.evaluate("selector => document.querySelector(selector).scrollIntoView()", selector)


def picture(page: Any, chart: str) -> str:
    """Return what a chart's canvas shows."""
    return str(page.evaluate("id => document.querySelector(`#chart-${id} .uplot canvas`).toDataURL()", chart))


def value(page: Any, chart: str, at: int = 0) -> str:
    return str(page.locator(f"#chart-{chart} li b").nth(at).inner_text())


def is_wider_than_the_screen(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#tasks button.open").all_inner_texts()]


def filled(*processes: FakeProcess) -> Any:
    """Have a page over these processes, with some findings."""
    for process in processes:
        process.find("stall", "blocked for 320 ms by render in app.py:41")
        process.find("hung", "handle_request-7 is older than 99 % of its site: 102 s")
    return served(*processes, past_s=150)


@pytest.fixture(scope="module")
def page_server() -> Iterator[ServedPage]:
    with filled(FakeProcess(4242, actions=True)) as page:
        yield page


class TestOneProcess:
    def test_the_page_loads_without_errors_and_its_charts_move(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            page.wait_for_selector("#chart-gates .uplot canvas")
            assert page.locator(".chart .uplot").count() == 6
            for chart in ("delay", "utilization", "sites", "lanes", "gates"):
                before = picture(page, chart)
                until(page, lambda chart=chart, before=before: picture(page, chart) != before)
            assert page.locator("#program").inner_text() == "serve shop:app"
            assert re.fullmatch(r"[\d.]+ (ms|µs)", value(page, "delay"))
            shoot(page, "desk-light")

    def test_the_task_table_is_filtered_and_sorted_by_keyboard(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            until(page, lambda: len(names(page)) == 60)
            assert names(page)[0] == "send_mail-60"
            page.locator("#task-filter").focus()
            page.keyboard.type("heartbeat")
            until(page, lambda: len(names(page)) == 8)
            assert all(name.startswith("heartbeat-") for name in names(page))
            # on to the grouping, the region of the table, and its first sorted column
            for _ in range(3):
                page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "▼Age"
            page.keyboard.press("Enter")
            until(page, lambda: names(page)[0] == "heartbeat-6")
            assert page.locator("#tasks th[aria-sort=ascending]").inner_text().strip().endswith("Age")
            page.keyboard.press("Tab")
            page.keyboard.press("Space")
            page.wait_for_selector("#tasks th[aria-sort=descending] >> text=Running")
            # the focus stays on the column's button while rows are exchanged
            assert page.evaluate("document.activeElement.textContent") == "▼Running"
            scroll(page, "#tasks-title")
            shoot(page, "tasks-filtered")

    def test_one_task_shows_its_await_chain_and_is_cancelled(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            page.locator("#tasks button.open").nth(2).press("Enter")
            page.wait_for_selector("#task-detail h3")
            assert page.evaluate("document.activeElement.id") == "task-detail"
            text = page.locator("#task-detail").inner_text()
            assert "awaits a lock 'db'" in text
            assert "supervise-3" in text
            page.locator("#task-detail >> text=Cancel the task").press("Enter")
            page.wait_for_selector("#task-detail >> text=task 58 is cancelled")
            scroll(page, "#tasks-title")
            shoot(page, "task-detail")

    @pytest.mark.parametrize(("group", "text"), [("site", "watch_orders (app.py:40)"), ("stack", "a lock 'db'")])
    def test_tasks_are_grouped(self, browser: Any, page_server: ServedPage, group: str, text: str) -> None:
        with opened(browser, page_server.url) as page:
            page.select_option("#task-group", group)
            page.wait_for_selector(f"#tasks td >> text={text}")

    def test_the_await_graph_draws_its_cycle(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            page.locator("#graph-draw").press("Enter")
            page.wait_for_selector("#graph svg")
            assert page.locator("#graph .in-cycle").count() == 3
            assert page.locator("#graph path.edge.back").count() == 3
            assert page.locator("#graph li").inner_text() == "↺ mover-a → mover-b → mover-c → mover-a"
            assert "1 cycles" in str(page.locator("#graph svg").get_attribute("aria-label"))
            boxes = page.evaluate(
                "[...document.querySelectorAll('#graph rect')].map(r => [r.x, r.y].map(v => v.baseVal.value).join())"
            )
            assert len(set(boxes)) == len(boxes)
            scroll(page, "#graph-title")
            shoot(page, "await-graph")

    def test_findings_have_their_evidence(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            page.locator("#findings summary").first.press("Enter")
            page.wait_for_selector("#findings dd >> text=app.py:41 in render")
            scroll(page, "#findings-title")
            shoot(page, "findings")

    def test_a_trace_is_downloaded(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url, accept_downloads=True) as page:
            with page.expect_download() as download:
                page.locator("#trace-form button").press("Enter")
            assert re.fullmatch(r"penstock-4242-[\d-]+\.json", download.value.suggested_filename)
            assert "traceEvents" in Path(download.value.path()).read_text()

    def test_dark_and_light_follow_the_system_and_the_switch(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url, color_scheme="dark") as page:
            theme = "document.documentElement.dataset.theme"
            back = "getComputedStyle(document.body).backgroundColor"
            assert page.evaluate(theme) == "dark"
            dark = page.evaluate(back)
            shoot(page, "desk-dark")
            page.select_option("#theme", "light")
            assert page.evaluate(theme) == "light"
            assert page.evaluate(back) != dark
            page.reload()
            assert page.evaluate(theme) == "light"
            page.select_option("#theme", "auto")
            assert page.evaluate(theme) == "dark"

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_has_contrast(self, browser: Any, page_server: ServedPage, scheme: str) -> None:
        with opened(browser, page_server.url, color_scheme=scheme) as page:
            found = page.evaluate(CONTRASTS)
            assert len(found) > 30
            assert [each for each in found if each[0] < 4.5] == []

    def test_a_phone_shows_all_without_scrolling_sideways(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url, PHONE, has_touch=True, is_mobile=True) as page:
            page.locator("#graph-draw").click()
            page.wait_for_selector("#graph svg")
            page.locator("#tasks button.open").first.click()
            page.wait_for_selector("#task-detail h3")
            assert not is_wider_than_the_screen(page)
            page.evaluate("scrollTo(0, 0)")
            shoot(page, "phone")
            shoot(page, "phone-whole", whole=True)

    def test_the_keyboard_reaches_all_controls_in_order_with_a_visible_focus(
        self, browser: Any, page_server: ServedPage
    ) -> None:
        with opened(browser, page_server.url) as page:
            page.wait_for_selector("#tasks button.open")
            reached = []
            for _ in range(18):
                page.keyboard.press("Tab")
                reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", reached
            assert reached[:5] == ["skip", "scope", "span", "pause", "theme"]
            assert reached[5:11] == ["plot"] * 6
            assert reached[11:13] == ["task-filter", "task-group"]

    def test_arrow_keys_read_a_chart(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            plot = page.locator("#chart-delay .plot")
            plot.wait_for()
            plot.focus()
            assert "now:" in str(plot.get_attribute("aria-label"))
            page.keyboard.press("ArrowLeft")
            assert re.search(r"at \d\d:\d\d:\d\d: p99 ", str(plot.get_attribute("aria-label")))

    def test_a_paused_page_asks_for_nothing(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            page.locator("#pause").press("Enter")
            page.wait_for_selector("#connection[data-state=paused]")
            wait_until(lambda: not page_server.sampler.is_watched)
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.wait_for_timeout(2500)
            assert asked == []
            page.locator("#pause").press("Enter")
            page.wait_for_selector("#connection[data-state=live]")

    def test_every_control_and_table_has_a_name(self, browser: Any, page_server: ServedPage) -> None:
        with opened(browser, page_server.url) as page:
            page.wait_for_selector("#parts table")
            assert page.evaluate(UNNAMED) == []
            order = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(each => Number(each.tagName[1]))")
            assert order[0] == 1
            assert all(later - before <= 1 for before, later in pairwise(order))

    def test_names_of_the_program_are_text_and_never_markup(self, browser: Any) -> None:
        evil = FakeProcess(4242, name="<img src=x onerror=alert(1)>")
        evil.find("stall", "<script>alert(1)</script>")
        with served(evil) as server, opened(browser, server.url) as page:
            page.wait_for_selector("#findings summary")
            assert page.locator("#program").inner_text() == "<img src=x onerror=alert(1)>"
            assert page.locator("#findings script, #program img").count() == 0


def test_the_page_goes_on_while_the_loop_is_blocked_and_while_the_gil_is_held(browser: Any) -> None:
    process = FakeProcess(4242)
    with filled(process) as server, opened(browser, server.url) as page:
        process.blocked_s = 1.5
        page.wait_for_selector(".verdict.bad >> text=blocked")
        page.wait_for_selector("#chart-delay li b >> text=1.50 s")
        process.holds_gil, process.blocked_s = True, 3.0
        page.wait_for_selector("#notices >> text=the GIL is held for 3.0 s")
        page.wait_for_selector("#chart-delay li b >> text=3.00 s")
        before = picture(page, "delay")
        process.blocked_s = 4.0
        page.wait_for_selector("#chart-delay li b >> text=4.00 s")
        assert picture(page, "delay") != before
        shoot(page, "gil-held")
        process.holds_gil, process.blocked_s = False, None
        until(page, lambda: page.locator("#notices li").count() == 0)


def test_workers_are_shown_merged_and_apart(browser: Any) -> None:
    workers = [FakeProcess(4242, 1), FakeProcess(4243, 2), FakeProcess(4244, 3)]
    with filled(*workers) as server, opened(browser, server.url) as page:
        page.wait_for_selector("#workers tbody tr")
        assert page.locator("#workers tbody tr").count() == 3
        page.wait_for_selector("#tasks td >> text=send_mail-60")
        workers[1].blocked_s = 2.0
        page.wait_for_selector(".verdict.bad >> text=Worker 2")
        shoot(page, "workers")
        page.locator("#workers button.open").nth(1).press("Enter")
        page.wait_for_selector("#parts table")
        assert page.locator("#scope").input_value() == "4243"
        page.select_option("#scope", "0")
        page.wait_for_selector("#parts .empty")


def test_the_end_of_the_process_is_shown_with_its_last_charts(browser: Any) -> None:
    with filled(FakeProcess(4242)) as server, opened(browser, server.url) as page:
        page.wait_for_selector("#chart-delay .uplot canvas")
        server.source.processes.clear()
        page.wait_for_selector(".verdict.bad >> text=The process has ended.")
        assert page.locator("#chart-delay .uplot canvas").is_visible()
        shoot(page, "ended")


def test_a_page_process_that_is_gone_is_said(browser: Any) -> None:
    with filled(FakeProcess(4242)) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("#connection[data-state=live]")
        server.server.close()
        page.evaluate("window.dispatchEvent(new Event('x'))")
        page.locator("#pause").press("Enter")
        page.locator("#pause").press("Enter")
        page.wait_for_selector("#connection[data-state=lost]")
        context.close()


def test_the_token_comes_by_the_fragment_and_leaves_the_address(browser: Any) -> None:
    with served(FakeProcess(4242), token=TOKEN) as server, opened(browser, f"{server.url}#token={TOKEN}") as page:
        assert page.url == server.url
        assert page.context.cookies()[0]["httpOnly"]
        # the cookie is enough from then on
        page.reload()
        page.wait_for_selector("#connection[data-state=live]")


def test_without_the_token_a_login_is_shown(browser: Any) -> None:
    with served(FakeProcess(4242), token=TOKEN) as server:
        context = browser.new_context(viewport=DESK)
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("#login:not([hidden])")
        page.wait_for_selector("#connection[data-state=locked]")
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#login-error >> text=this is not the token")
        shoot(page, "login")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#connection[data-state=live]")
        page.wait_for_selector("#views:not([hidden])")
        context.close()


UNNAMED = """
() => {
  const every = (selector, isNamed) => [...document.querySelectorAll(selector)].filter((each) => !isNamed(each));
  return [
    ...every("select, input", (each) => each.labels.length),
    ...every("table", (each) => each.caption?.textContent),
    ...every("section", (each) => each.getAttribute("aria-labelledby")),
    ...every("button", (each) => each.textContent.trim()),
  ].map((each) => each.outerHTML);
}
"""
CONTRASTS = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("[hidden], .visually-hidden, svg, noscript")) continue;
    if (!element.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), element.tagName, element.className, element.textContent.slice(0, 30)]);
  }
  return found;
}
"""
