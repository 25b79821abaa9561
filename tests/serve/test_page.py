"""The page in a real browser, on a real endpoint: by mouse, by keyboard, on a phone, in the dark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from serve.local import Endpoint

PATIENCE_S = 60
Page = webdriver.Chrome


@pytest.fixture(scope="module")
def browser(needs_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    chromium, driver = needs_program("chromium"), needs_program("chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    page.downloads = downloads  # type: ignore[attr-defined]
    yield page
    page.quit()


@pytest.fixture
def page(browser: Page, endpoint: Endpoint) -> Iterator[Page]:
    """The page as its printed address opens it, at 1,280 pixels, in the light."""
    show(browser, 1280, 1000)
    browser.get("about:blank")
    browser.get(f"{endpoint.url}/#key={endpoint.api_key}")
    wait(browser, lambda: "calibrated findings" in browser.find_element(By.ID, "model").text)
    browser.get_log("browser")
    yield browser
    said = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # A refused request is an error to the console; everything else would be one of the page.
    assert not [entry for entry in said if "status of 4" not in entry["message"]]


def show(browser: Page, width: int, height: int, scheme: str = "light") -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(browser: Page, until: Callable[[], object]) -> None:
    WebDriverWait(browser, PATIENCE_S).until(lambda _: until())


def findings(page: Page) -> dict[str, WebElement]:
    wait(page, lambda: not page.find_elements(By.CSS_SELECTOR, "#findings[aria-busy]"))
    cards = page.find_elements(By.CSS_SELECTOR, "#findings .finding")
    return {card.find_element(By.CLASS_NAME, "name").text: card for card in cards}


def status(page: Page) -> str:
    return page.find_element(By.ID, "status").text


def upload(page: Page, *files: Path) -> dict[str, WebElement]:
    page.find_element(By.ID, "files").send_keys("\n".join(map(str, files)))
    wait(page, lambda: "asked for" in status(page) or "Nothing is decided" in status(page))
    return findings(page)


def test_an_uploaded_file_is_answered_as_by_the_api(
    page: Page, endpoint: Endpoint, phantom_dicom: bytes, tmp_path: Path
) -> None:
    from medfilip.client import Client

    (tmp_path / "image.dcm").write_bytes(phantom_dicom)
    cards = upload(page, tmp_path / "image.dcm")
    with Client(endpoint.url, endpoint.api_key) as client:
        told = client.diagnose(phantom_dicom)
    assert set(cards) == {"pleural effusion", "nodule"}
    for finding in told.findings:
        card = cards[finding.label.replace("_", " ")]
        number = finding.probability
        shown = "> 99 %" if number > 0.995 else "< 1 %" if number < 0.005 else f"{round(number * 100)} %"
        assert card.find_element(By.CLASS_NAME, "value").text == shown
        assert finding.decision in card.find_element(By.CLASS_NAME, "decision").text
    width = page.execute_script("return document.getElementById('image').naturalWidth")
    assert width == 512, "the picture of a DICOM file is shown"
    shown = page.find_element(By.ID, "facts").text
    assert "frontal" in shown and "512 × 512, 12 bits" in shown


def test_a_phantom_a_heat_map_and_why(page: Page) -> None:
    page.find_elements(By.CSS_SELECTOR, "#samples button")[0].click()
    wait(page, lambda: findings(page))
    assert "Drawn in this phantom" in page.find_element(By.ID, "notes").text
    card = next(iter(findings(page).values()))
    card.find_element(By.TAG_NAME, "summary").click()
    assert "Scores:" in card.text and "Threshold" in card.text
    button = card.find_element(By.TAG_NAME, "button")
    button.click()
    wait(page, lambda: status(page).startswith(("Shown", "Nothing in the image")))
    assert button.get_attribute("aria-pressed") == "true"
    drawn = "return document.getElementById('map').width"
    if status(page).startswith("Shown"):
        wait(page, lambda: page.execute_script(drawn) > 0)
    button.click()
    wait(page, lambda: page.execute_script(drawn) == 0)
    assert button.get_attribute("aria-pressed") == "false"


def test_a_new_disease_is_asked_for_by_keyboard_alone(page: Page, phantom_dicom: bytes, tmp_path: Path) -> None:
    (tmp_path / "image.dcm").write_bytes(phantom_dicom)
    upload(page, tmp_path / "image.dcm")
    page.find_element(By.ID, "labels").click()
    for text in ("nodule, small left pleural effusion", "star shadow", "bright star; ten spikes"):
        page.switch_to.active_element.send_keys(text, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "point"
    page.switch_to.active_element.send_keys(Keys.TAB)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait(page, lambda: "star shadow" in findings(page))
    assert set(findings(page)) == {"nodule", "small left pleural effusion", "star shadow"}
    card = findings(page)["star shadow"]
    card.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert "ten spikes" in card.text and "not calibrated" in card.text
    Select(page.find_element(By.ID, "point")).select_by_value("youden")
    page.find_element(By.ID, "name").send_keys("another", Keys.ENTER)
    assert "looks like" in status(page), "a name alone is no description"


def test_described_diseases_stay_for_the_next_study_until_they_are_removed(page: Page) -> None:
    for name in ("star shadow", "ring shadow"):
        page.find_element(By.ID, "name").send_keys(name)
        page.find_element(By.ID, "phrases").send_keys("bright shape", Keys.ENTER)
    page.refresh()
    wait(page, lambda: "calibrated findings" in page.find_element(By.ID, "model").text)
    samples = page.find_elements(By.CSS_SELECTOR, "#samples button")
    samples[0].click()
    wait(page, lambda: set(findings(page)) == {"pleural effusion", "nodule", "star shadow", "ring shadow"})
    page.find_element(By.CSS_SELECTOR, '#diseases button[aria-label="Remove ring shadow"]').click()
    assert "not asked for" in status(page)
    samples[1].click()
    wait(page, lambda: set(findings(page)) == {"pleural effusion", "nodule", "star shadow"})
    page.find_element(By.CSS_SELECTOR, "#diseases button").click()


def test_an_image_is_enlarged_within_its_place(page: Page) -> None:
    page.find_elements(By.CSS_SELECTOR, "#samples button")[0].click()
    wait(page, lambda: findings(page))
    sizes = (
        "const [s, i] = ['stage', 'image'].map((id) => document.getElementById(id));"
        "return [i.clientWidth, s.clientWidth, s.clientHeight]"
    )
    wait(page, lambda: page.execute_script(sizes)[0] > 0)
    width, *place = page.execute_script(sizes)
    slider = page.find_element(By.ID, "zoom")
    slider.send_keys(Keys.END)
    assert page.execute_script(sizes)[0] == pytest.approx(5 * width, abs=5)
    assert page.execute_script(sizes)[1:] == pytest.approx(place, abs=20), "scroll bars may take a little"
    assert page.execute_script("return document.scrollingElement.scrollWidth") <= 1280
    assert page.find_element(By.ID, "zoomed").text == "500 %"
    slider.send_keys(Keys.HOME)
    assert page.execute_script(sizes)[0] == pytest.approx(width, abs=2)
    strength = page.find_element(By.ID, "strength")
    assert not strength.is_enabled(), "there is no map yet"
    next(iter(findings(page).values())).find_element(By.CSS_SELECTOR, ".foot button").click()
    wait(page, lambda: status(page).startswith(("Shown", "Nothing in the image")))
    wait(page, strength.is_enabled)
    strength.send_keys(Keys.HOME)
    assert page.execute_script("return document.getElementById('map').style.opacity") == "0"


def test_downloads_are_what_the_api_gives(page: Page, phantom_dicom: bytes, tmp_path: Path) -> None:
    import pydicom

    (tmp_path / "image.dcm").write_bytes(phantom_dicom)
    upload(page, tmp_path / "image.dcm")
    for button in page.find_elements(By.CSS_SELECTOR, "#downloads button"):
        done = f"{button.text.removeprefix('Download ')} was downloaded."
        button.click()
        wait(page, lambda done=done: status(page) == done)
    folder: Path = page.downloads  # type: ignore[attr-defined]
    names = {"diagnosis.json", "diagnosis.fhir.json", "diagnosis.dcm"}
    wait(page, lambda: {file.name for file in folder.iterdir()} >= names)
    assert json.loads((folder / "diagnosis.json").read_text())["intended_use"] == "research use only"
    assert json.loads((folder / "diagnosis.fhir.json").read_text())["resourceType"] == "DiagnosticReport"
    assert pydicom.dcmread(folder / "diagnosis.dcm").Modality == "SR"


def test_what_is_refused_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.dcm").write_bytes(b"no image")
    page.find_element(By.ID, "files").send_keys(str(tmp_path / "notes.dcm"))
    wait(page, lambda: page.find_elements(By.CLASS_NAME, "error"))
    assert "DICOM" in page.find_element(By.CLASS_NAME, "error").text and not findings(page)


def test_a_key_is_asked_for_and_kept_out_of_sight(page: Page, endpoint: Endpoint) -> None:
    assert endpoint.api_key is not None and endpoint.api_key not in page.current_url
    page.execute_script("sessionStorage.clear()")
    page.refresh()
    wait(page, lambda: page.find_element(By.ID, "key").is_displayed())
    page.find_element(By.ID, "key").send_keys(endpoint.api_key, Keys.ENTER)
    wait(page, lambda: not page.find_element(By.ID, "key").is_displayed())


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_it_fits_a_phone_and_the_dark(page: Page, width: int, scheme: str) -> None:
    show(page, width, 900, scheme)
    page.find_elements(By.CSS_SELECTOR, "#samples button")[-1].click()
    wait(page, lambda: findings(page))
    assert page.execute_script("return document.scrollingElement.scrollWidth") <= width
    dark = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(dark.removeprefix("rgb(").split(",")[0]) < 60) == (scheme == "dark")
    buttons = page.find_elements(By.CSS_SELECTOR, "button:not([hidden])")
    assert min(button.rect["height"] for button in buttons if button.is_displayed()) >= 30


def test_nothing_comes_from_elsewhere(page: Page, endpoint: Endpoint) -> None:
    names = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(names) > 3 and all(name.startswith((endpoint.url, "data:", "blob:")) for name in names)
    blocked = page.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org').then(() => done('sent'), () => done('blocked'))"
    )
    assert blocked == "blocked"
    page.get_log("browser")
