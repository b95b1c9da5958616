"""Facts about the page of a repository, as a browser shows it."""

import re
import stat
import sys
from datetime import UTC, datetime, timedelta

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

import snapmig
from snapmig.errors import SnapmigError
from tests.support.requirements import requires

NOW = datetime.now(UTC)
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J"
GUESTS = '[guests.db]\nsource = "db.ram"\nmax_age = "0d"\n[guests.gone]\nsource = "gone.ram"\n'


@pytest.fixture
def reported(place):
    """Give a place with guests that are late, good and without a snapshot, and the page of it."""
    general = 'full_every = 7\nmax_age = "1d"\ncheck_within = "30d"\nretention.keep_last = 2'
    place.configure(general, guests=GUESTS)
    for age, number in ((9, 1), (6, 2), (3, 3)):
        place.put(NOW - timedelta(days=age), number)
    place.backup("run", "db").ok()
    (place.folder / "repo" / "db" / HOSTILE).touch()
    place.backup("report", f"--output={place.folder / 'page.html'}").warns(
        "web: late: its last good snapshot is older than 1d",
        "gone: has no snapshot that can be restored",
    )
    return place


@pytest.fixture(scope="module")
def chromium():
    """Give a browser that is told nothing by the page's server, for there is none."""
    requires("chromium")
    requires("chromedriver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    browser = webdriver.Chrome(options, service)
    yield browser
    browser.quit()


@pytest.fixture
def page(reported, chromium):
    """Give the browser with the page."""
    chromium.get_log("browser")
    chromium.set_window_size(1200, 900)
    chromium.get((reported.folder / "page.html").as_uri())
    return chromium


def shown(browser, selector="#guests tbody tr"):
    """Return the guests of the rows, or sections, that are to be seen."""
    found = browser.find_elements(By.CSS_SELECTOR, selector)
    return [one.get_attribute("data-name") for one in found if one.is_displayed()]


def test_the_page_loads_without_a_complaint(page):
    """The browser's console stays empty, and nothing is asked for elsewhere."""
    resources = page.execute_script("return performance.getEntriesByType('resource').length")

    assert page.get_log("browser") == []
    assert resources == 0


def test_guests_have_their_states(page):
    """Each row says how the guest is."""
    rows = page.find_elements(By.CSS_SELECTOR, "#guests tbody tr")
    found = {row.get_attribute("data-name"): row.text.split()[1] for row in rows}

    assert found == {"web": "late", "db": "good", "gone": "none"}


def test_words_filter_guests(page):
    """What is typed leaves the guests with it, above and below."""
    page.find_element(By.ID, "words").send_keys("WE")

    assert shown(page) == shown(page, "section") == ["web"]
    assert page.find_element(By.ID, "shown").text == "1 of 3"


def test_states_filter_guests(page):
    """A state leaves those in it."""
    Select(page.find_element(By.ID, "state")).select_by_visible_text("none")

    assert shown(page) == shown(page, "section") == ["gone"]


def test_heads_sort(page):
    """A head sorts by its column, numbers as numbers; once more turns it round."""
    head = page.find_element(By.XPATH, "//th[contains(., 'Snapshots')]/button")
    head.click()
    upwards = shown(page)
    head.click()

    assert (upwards, shown(page)) == (["gone", "db", "web"], ["web", "db", "gone"])


def test_links_lead_to_guests(page):
    """A guest's name leads to its section."""
    page.find_element(By.LINK_TEXT, "gone").click()

    assert page.execute_script("return document.querySelector(':target').dataset.name") == "gone"


def test_keys_reach_everything(page):
    """The keyboard goes from filters to heads, links and what opens."""
    names = set()
    for _ in range(30):
        page.switch_to.active_element.send_keys(Keys.TAB)
        names.add(page.switch_to.active_element.tag_name)

    assert {"input", "select", "button", "a", "summary"} <= names


def test_a_phone_needs_no_sideways_scrolling(page):
    """Only tables and pictures scroll by themselves."""
    page.set_window_size(500, 800)  # the least that a window may be
    wide = page.execute_script("return document.documentElement.scrollWidth - innerWidth")

    assert wide <= 0


def test_names_are_only_text(page):
    """A hostile file's name is shown and nothing more."""
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert "<img src=x onerror=alert(1)>\\x1b[2J is not of a backup" in page.page_source.replace(
        "&lt;", "<"
    ).replace("&gt;", ">")


def test_each_snapshot_has_a_bar_and_a_row(reported):
    """A snapshot is in the timeline and in the table, with its fate."""
    text = (reported.folder / "page.html").read_text()
    section = re.search(r'<section id="guest-web".*?</section>', text, re.S)[0]

    assert len(re.findall(r'<rect class="full', section)) == 3
    assert len(re.findall(r'<rect class="full goes', section)) == 1
    assert section.count("removes it") == 1
    assert [name for name in reported.stored() if name not in section] == []


def test_the_newest_one_has_a_map(reported):
    """The memory of a guest's newest snapshot is a picture, unless it is not wanted."""
    assert 'class="map"' in (reported.folder / "page.html").read_text()
    reported.backup("report", "--no-maps", "-f", f"--output={reported.folder / 'page.html'}")
    assert 'class="map"' not in (reported.folder / "page.html").read_text()


def test_a_directory_gets_an_index(place):
    """With a directory the page is its index, for others to read, and stays unless forced."""
    place.backup("run").ok()
    (place.folder / "www").mkdir()
    place.backup("report", f"--output={place.folder / 'www'}").ok()
    index = place.folder / "www" / "index.html"

    assert stat.S_IMODE(index.stat().st_mode) & 0o044
    place.backup("report", f"--output={place.folder / 'www'}").fails(1, "-f overwrites it", lines=1)
    place.backup("report", "-f", f"--output={place.folder / 'www'}").ok()


def test_other_names_are_refused(place):
    """A page has the name of one."""
    outcome = place.backup("report", f"--output={place.folder / 'page.txt'}")

    outcome.fails(2, "neither a directory nor a name that ends in .html", lines=1)


def test_a_folder_that_cannot_be_read_is_a_state(place):
    """Guests of a repository that is not mounted are on the page, with the reason."""
    (place.folder / "repo").rmdir()
    outcome = place.backup("report", "-v", f"--output={place.folder / 'page.html'}")

    outcome.warns("there is no such directory: make the repository, or mount it")
    assert outcome.out.startswith("web: unknown, last good never")


def test_programs_get_the_states(place):
    """A line of JSON for each guest says what the page says."""
    place.put(NOW - timedelta(days=3), 1)
    found = place.told("report", f"--output={place.folder / 'page.html'}")[0]

    assert (found["message_type"], found["state"], found["snapshots"]) == ("report", "good", 1)


def test_progress_says_what_is_looked_at(place):
    """Each guest's snapshots, and then its memory."""
    place.configure(guests=GUESTS)
    page = place.folder / "page.html"
    seen = []
    snapmig.backup.report(
        place.config, page, progress=lambda guest, state: seen.append((guest, state.phase))
    )

    assert seen == [
        (guest, phase)
        for phase in ("reading snapshots", "drawing memory")
        for guest in ("web", "db", "gone")
    ]


def test_a_terminal_shows_what_is_looked_at(place):
    """A line with the guest, gone at the end."""
    place.put(NOW, 1)
    err = place.backup("report", f"--output={place.folder}", "--progress=tty").ok(err=None).err
    left = re.sub(r"[^\r]*\r", "", err)

    assert "reporting web, reading snapshots" in err
    assert left.strip() == ""


def test_a_page_needs_jinja(place, monkeypatch):
    """Without it the sentence says how to install it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SnapmigError, match=r"pip install 'snapmig\[report\]'"):
        snapmig.backup.report(place.config, place.folder / "page.html")
