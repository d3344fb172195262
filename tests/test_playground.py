"""The playground: a page that asks for nothing, says what is so, and computes what minisam computes."""

import html
import json
import re
import shutil
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest

from minisam.analysis.toy import Path as Steps
from minisam.analysis.toy import run
from minisam.cli import main
from minisam.optim import GD, SAM, Adam, Momentum
from minisam.study import playground, plots, toy_plots

SHIPPED = Path(__file__).parents[1] / "tutorials" / "playground.html"
RACES = dict(zip(("bowl", "valley", "minima"), toy_plots.races(0.004, 0.8), strict=True))
SETTINGS = playground.settings([*RACES.values()])
SURFACES = {about["key"]: about for about in SETTINGS["surfaces"]}
METHODS = {
    "GD": lambda rates: GD(rates["lr"]),
    "Momentum": lambda rates: Momentum(rates["lr"], momentum=rates["momentum"]),
    "Adam": lambda rates: Adam(rates["adam"]),
    "SAM": lambda rates: SAM(GD(rates["lr"]), rates["rho"]),
}


def test_the_shipped_page_is_what_the_command_writes(tmp_path, capsys):
    assert main(["toy", "--html", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Open {tmp_path / 'playground.html'} in a browser\n"
    assert [file.name for file in tmp_path.iterdir()] == ["playground.html"]
    assert (tmp_path / "playground.html").read_bytes() == SHIPPED.read_bytes()


def test_the_page_names_no_other_place():
    text = SHIPPED.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link(?! rel=\"icon\" href=\"data:,\")|\bsrc=", text)
    assert "default-src 'none'" in text


def test_the_page_has_the_races():
    text = SHIPPED.read_text(encoding="utf-8")
    told = json.loads(re.search(r'id="data">(.*)</script>', text)[1])
    assert told == json.loads(json.dumps(SETTINGS))
    for (key, race), about in zip(RACES.items(), told["surfaces"], strict=True):
        assert (about["key"], about["kind"]) == (key, type(race.surface).__name__)
        assert race.title.startswith(about["title"])
        assert (about["start"], about["extent"]) == ([*race.start], [*race.extent])
        assert {name: np.array(about[name]).tolist() for name in vars(race.surface)} == {
            name: np.array(value).tolist() for name, value in vars(race.surface).items()
        }
        assert about["rates"]["lr"] == race.racers["GD"].lr
        for minimum in about["minima"]:
            np.testing.assert_allclose(race.surface(np.array(minimum, float)).grad, 0, atol=1e-5)
    rates = {key: about["rates"] for key, about in SURFACES.items()}
    assert [rates[key]["momentum"] for key in RACES] == [0.7, 0.9, 0.9]
    assert [rates[key]["rho"] for key in RACES] == [0.05, 0.05, 0.8]
    colours = {method["name"]: method["colour"] for method in told["methods"]}
    for name in METHODS:
        assert colours[name] == plots.STYLES["SAM(Momentum)" if name == "SAM" else name][0]
    assert len({tuple(method["dash"]) for method in told["methods"]}) == len(METHODS)


def test_other_rates_are_those_of_the_page_and_no_text_ends_its_script_early():
    races = toy_plots.races(0.001, 0.3)
    assert (
        playground.settings(races)["surfaces"][-1]["rates"] | {"lr": 0.001, "rho": 0.3}
        == (playground.settings(races)["surfaces"][-1]["rates"])
    )
    page = playground.page([*races[:-1], races[-1]._replace(title="</script><!--")])
    assert page.count("</script>") == SHIPPED.read_text(encoding="utf-8").count("</script>")
    assert "<!--" not in page


# What the page says


def experiments(name: str) -> list[tuple[str, dict[str, Steps]]]:
    """The surfaces and paths, by method, that the links of one experiment lead to, from minisam itself."""
    text = SHIPPED.read_text(encoding="utf-8")
    item = re.search(rf'<li id="{name}">(.*?)</li>', text, re.DOTALL)[1]
    found = []
    for link in re.findall(r'href="#([^"]*)"', item):
        told = {key: value[0] for key, value in parse_qs(html.unescape(link)).items()}
        key, start = told["surface"], [float(x) for x in told["start"].split(",")]
        rates = SURFACES[key]["rates"] | {
            rate: float(told[rate]) for rate in ("lr", "momentum", "rho", "adam") if rate in told
        }
        surface = RACES[key].surface
        paths = {each: run(METHODS[each](rates), surface, start, playground.STEPS) for each in told["run"].split(",")}
        found.append((key, paths))
    return found


def test_in_the_bowl_the_limit_of_lr_is_2_over_the_largest_curvature():
    (_, below), (_, above) = experiments("limit")
    for paths, grows in ((below, False), (above, True)):
        across = paths["GD"].thetas[:, 1]
        assert (across[1:] * across[:-1] < 0).all()  # from side to side at every step
        assert ((np.abs(across[1:]) > np.abs(across[:-1])) == grows).all()
    assert 0.06 < 2 / max(RACES["bowl"].surface.h) == 2 / 30 < 0.07


def test_gd_stays_in_the_sharp_minimum_and_sam_and_momentum_do_not():
    (_, race), (_, momentum) = experiments("race")
    sharp, flat = RACES["minima"].surface.centres
    assert race["GD"].thetas[0, 0] < sharp[0] < flat[0]  # on its far side
    for step in (100, 200):
        np.testing.assert_allclose(race["GD"].thetas[step], sharp, atol=0.01)
        np.testing.assert_allclose(race["SAM"].thetas[step], flat, atol=0.05)
    np.testing.assert_allclose(momentum["Momentum"].thetas[200], flat, atol=0.01)


def test_with_a_smaller_rho_sam_rests_in_neither_minimum_and_ends_higher_than_gd():
    ((_, linked),) = experiments("radius")
    surface, start = RACES["minima"].surface, RACES["minima"].start
    distance = np.linalg.norm(np.subtract(*surface.centres))
    assert SURFACES["minima"]["rates"]["rho"] == 0.8 == pytest.approx(0.4 * distance)
    for rho in (0.1, 0.2, 0.3, 0.4, 0.5):
        sam = run(SAM(GD(0.004), rho), surface, start, 400)
        for end in (slice(160, 200), slice(360, 400)):
            assert sam.losses[end].mean() > linked["GD"].losses[-1] + 5
    np.testing.assert_array_equal(linked["SAM"].thetas, run(SAM(GD(0.004), 0.3), surface, start, 200).thetas)


# In a browser

SWITCHES = ["headless=new", "window-size=1280,1000", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"]
SWITCHES += ["disable-background-networking", "disable-component-update", "disable-sync"]  # it asks for nothing, either


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    reason = "the playground's tests need pip install -e '.[browser]'"
    webdriver = pytest.importorskip("selenium.webdriver", reason=reason)
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (chromium and driver):
        pytest.skip("the playground's tests need chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in SWITCHES:
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield running
    running.quit()


class Page:
    """The playground in a tab."""

    def __init__(self, browser):
        self.browser = browser

    def open(self, fragment: str = "") -> None:
        self.browser.get("about:blank")  # otherwise only the fragment would change
        self.browser.get(f"{SHIPPED.as_uri()}{fragment}")
        self.until("backdrop of a surface", "document.querySelector('#step-shown').textContent")

    def js(self, code: str, *arguments):
        return self.browser.execute_script(f"return {code}", *arguments)

    def until(self, what: str, code: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 20, 0.05).until(lambda _: self.js(code), what)

    def find(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def state(self) -> dict[str, str]:
        """What the address would tell about the page."""
        return {key: value[0] for key, value in parse_qs(self.js("address(state)")[1:], keep_blank_values=True).items()}

    def told(self) -> dict[str, str]:
        """What the address tells, once nothing has changed for a moment."""
        self.until("an address that follows the state", "location.hash === address(state)")
        return self.state()

    def path(self, method: str, key: str, start, rates, steps: int = playground.STEPS) -> Steps:
        """A path as the page computes it, with NaN for what is not finite."""
        code = "JSON.stringify(descend(arguments[0], SURFACES[arguments[1].kind](arguments[1]), ...arguments[2]))"
        found = json.loads(self.js(code, method, SURFACES[key], [start, rates, steps]))
        return Steps(*(np.array(found[name], float) for name in ("thetas", "worst", "losses")))


@pytest.fixture
def page(browser):
    """A page in its first state; afterwards there must be no error, and no request."""
    opened = Page(browser)
    opened.open()
    yield opened
    assert browser.get_log("browser") == []
    assert opened.js("performance.getEntriesByType('resource').map((entry) => entry.name)") == []


RATES = {
    "its own rates": {},
    "slow": {"lr": 0.001, "momentum": 0.5, "rho": 0.3, "adam": 0.02},
    "fast": {"lr": 0.015, "momentum": 0.99, "rho": 1.0, "adam": 1.0},
    "no momentum, no radius": {"momentum": 0.0, "rho": 0.0, "adam": 0.0001},
}
STARTS = [None, (0.4, 0.9), (-0.5, -0.3), (0.0, 0.0), (1.25, -0.7)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("key", RACES)
def test_paths_are_minisams(page, key, method):
    """200 steps to 1e-9 of the path's size; a path that diverges does so at the same step."""
    for given in RATES.values():
        rates = SURFACES[key]["rates"] | given
        for start in (each or RACES[key].start for each in STARTS):
            with np.errstate(all="ignore"):
                expected = run(METHODS[method](rates), RACES[key].surface, start, playground.STEPS)
            found = page.path(method, key, start, rates)
            assert found.thetas.shape == expected.thetas.shape
            assert found.worst.shape == expected.worst.shape
            scale = np.abs(expected.thetas[np.isfinite(expected.thetas)]).max()
            for a, b in ((found.thetas, expected.thetas), (found.worst, expected.worst)):
                assert (np.isfinite(a) == np.isfinite(b)).all()
                finite = np.isfinite(b)
                np.testing.assert_allclose(a[finite], b[finite], rtol=0, atol=1e-9 * scale + 1e-300)
            losses = np.isfinite(expected.losses)
            assert (np.isfinite(found.losses[:-1]) == losses).all()
            np.testing.assert_allclose(found.losses[:-1][losses], expected.losses[losses], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("rho", [0.1, 0.5])
def test_where_sams_path_is_chaotic_every_step_is_minisams(page, rho):
    """With these radii a start that differs by 1e-15 ends elsewhere: no two programs could have the same path."""
    race, rates = RACES["minima"], SURFACES["minima"]["rates"] | {"rho": rho}
    near, path = (
        run(METHODS["SAM"](rates), race.surface, start, 200) for start in (np.add(race.start, [0, 1e-15]), race.start)
    )
    assert np.abs(near.thetas - path.thetas).max() > 0.01
    code = """
        const surface = SURFACES.TwoMinima(arguments[0]);
        const steps = arguments[2].map((theta) => descend("SAM", surface, theta, arguments[1], 1));
        return JSON.stringify(steps.map(({ worst, thetas }) => [worst[0], thetas[1]]));"""
    steps = json.loads(page.browser.execute_script(code, SURFACES["minima"], rates, path.thetas[:-1].tolist()))
    np.testing.assert_allclose(steps, np.stack([path.worst, path.thetas[1:]], axis=1), rtol=1e-9, atol=1e-9)


def test_the_list_shows_losses_and_minisams_code(page):
    page.open("#surface=minima&step=100&run=GD,SAM")
    race = RACES["minima"]
    rows = dict(row.text.split("\n", 1) for row in page.browser.find_elements("css selector", ".method"))
    assert [*rows] == [*METHODS]
    assert rows["SAM"].endswith("SAM(GD(lr=0.004), rho=0.8)")
    shown = float(rows["SAM"].split("\n")[0].replace("−", "-"))
    loss = run(METHODS["SAM"](SURFACES["minima"]["rates"]), race.surface, race.start, 101).losses[100]
    assert shown == pytest.approx(loss, rel=0.05)
    for name, code in (line.rsplit("\n", 1) for line in map("\n".join, rows.items())):
        built = METHODS[name.split("\n")[0]](SURFACES["minima"]["rates"])
        assert eval(code) == built  # the code is minisam's
    page.open("#surface=bowl&lr=1&run=GD&step=200")
    assert page.find(".method .value").text == "diverged"


def test_what_is_chosen_is_drawn_in_its_colour(page):
    code = """
        const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
        const pixels = Array.from(new Uint32Array(data.buffer), (pixel) => pixel & 0xffffff);
        return arguments[0].map((colour) => pixels.filter((pixel) => pixel === colour).length);"""
    rgb = [method["colour"].lstrip("#") for method in SETTINGS["methods"]]
    colours = [int.from_bytes(bytes.fromhex(colour), "little") for colour in rgb]
    for i, name in enumerate(METHODS):
        page.open(f"#run={name}&step=20")
        page.until("a map", "map.width > 600")
        drawn = page.browser.execute_script(code, colours)
        assert drawn.pop(i) > 50
        assert max(drawn) == 0


def test_a_dragged_start(page):
    from selenium.webdriver import ActionChains

    canvas, extent = page.find("#map"), RACES["minima"].extent
    width, height = (page.js(f"arguments[0].client{name}", canvas) for name in ("Width", "Height"))
    per_pixel = (extent[1] - extent[0]) / (width - 46 - 6)  # within the margins; both axes have one scale
    to = (-300, -100)  # pixels from the middle
    grip = ActionChains(page.browser).move_to_element(canvas).click_and_hold()
    grip.move_by_offset(*to).release().move_by_offset(200, 50).perform()  # once released it stays
    x, y = (float(number) for number in page.told()["start"].split(","))
    assert x == pytest.approx(extent[0] + (width / 2 + to[0] - 46) * per_pixel, abs=0.02)
    assert y == pytest.approx(-(height / 2 + to[1] - (6 + (height - 6 - 30) / 2)) * per_pixel, abs=0.02)
    assert page.js("paths.SAM.thetas[0]") == [x, y]


def test_keys_move_the_start(page):
    from selenium.webdriver import Keys

    canvas = page.find("#map")
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.SHIFT + Keys.ARROW_DOWN)
    assert page.told()["start"] == "-2.1,0.15"
    canvas.send_keys(Keys.NULL, Keys.ARROW_LEFT * 20)
    assert page.told()["start"] == f"{RACES['minima'].extent[0]},0.15"  # no farther than the map


def test_sliders_and_boxes(page):
    from selenium.webdriver import Keys

    for rate, keys, shown in (
        ("lr", Keys.ARROW_RIGHT * 2, "0.0042"),
        ("lr", Keys.END, "1"),
        ("lr", Keys.HOME, "0.0001"),
        ("rho", Keys.ARROW_LEFT, "0.79"),
        ("momentum", Keys.END, "0.99"),
        ("adam", Keys.ARROW_LEFT, "0.099"),
    ):
        slider = page.find(f"[data-rate={rate}]")
        slider.send_keys(keys)
        assert page.told()[rate] == shown == slider.get_attribute("aria-valuetext")
        assert slider.find_element("xpath", "..").find_element("css selector", ".value").text == shown
    page.find(".method").click()
    assert page.told()["run"] == "Momentum,Adam,SAM"
    from selenium.webdriver.support.ui import Select

    Select(page.find("#surface")).select_by_value("valley")
    told = page.told()
    assert told["start"] == "-1.2,1"
    assert {rate: float(told[rate]) for rate in SURFACES["valley"]["rates"]} == SURFACES["valley"]["rates"]
    assert told["run"] == "Momentum,Adam,SAM"


def test_steps_forward_back_and_playing(page):
    def press(name):
        page.find(f"#{name}").click()
        return int(page.state()["step"])

    assert [press(name) for name in ("rewind", "back", "forward", "forward", "back")] == [0, 0, 1, 2, 1]
    page.told()
    page.js("speed.value = 2")
    spoken = page.find("#status").get_attribute("textContent")
    press("play")
    assert page.find("#play").text == "Pause"
    page.until("steps", "state.step > 2")
    assert page.find("#status").get_attribute("textContent") == spoken  # a screen reader is not flooded
    press("play")
    step = int(page.told()["step"])
    assert 2 < step < 200
    assert f" Step {step}. Loss: GD " in page.find("#status").get_attribute("textContent")
    assert page.state()["step"] == str(step)
    page.open("#step=199")
    page.js("speed.value = 60")
    press("play")
    page.until("an end", "timer === null && state.step === 200")
    page.until("a new address", "location.hash.endsWith('step=200')")
    press("play")
    assert int(page.state()["step"]) < 200  # from the start again
    press("play")


def test_a_link_tells_everything(page):
    fragment = "#surface=valley&start=0.5,-0.25&lr=0.0123&momentum=0.33&rho=0.21&adam=0.055&run=Momentum,SAM&step=77"
    page.open(fragment)
    told = page.state()
    assert page.js("address(state)") == fragment
    tab = page.browser.current_window_handle
    page.find("#copy").click()
    assert page.find("#copied").text in ("Copied.", "Copy it from the address bar.")
    url = page.browser.current_url
    page.browser.switch_to.new_window("tab")
    try:
        page.browser.get(url)
        page.until("a page", "document.querySelector('#step-shown').textContent === '77 of 200'")
        assert page.state() == told
        assert [box.is_selected() for box in page.browser.find_elements("css selector", ".method input")] == [
            name in ("Momentum", "SAM") for name in METHODS
        ]
    finally:
        page.browser.close()
        page.browser.switch_to.window(tab)


def test_links_on_the_page_are_followed(page):
    for link in page.browser.find_elements("css selector", "ol a"):
        link.click()
        wanted = {key: value[0] for key, value in parse_qs(link.get_attribute("href").partition("#")[2]).items()}
        page.until("its state", f"state.run.join() === '{wanted['run']}'")
        assert page.told().items() >= wanted.items()


@pytest.mark.parametrize(
    "fragment",
    [
        "surface=<img src=x onerror=alert(1)>&run=<img src=x onerror=alert(1)>",
        "surface=__proto__&run=constructor&lr=valueOf",
        "start=1e999,0&lr=Infinity&rho=NaN&step=1e9",
        "start=<b>,1&lr=-1&momentum=1&step=-1",
        "start=1&lr=&rho=%20&adam=1e-400&run=GD,gd",
        "start=0,0,0&momentum=0.5px&step=two",
        "start=9,0&lr=2&%E0%A4%A=&&&==&lr=0.1",
    ],
)
def test_what_a_link_should_not_say_is_ignored(page, fragment):
    first, elements = page.state(), page.js("document.querySelectorAll('*').length")
    page.open(f"#{fragment}")
    assert page.state() == first
    assert page.js("document.querySelectorAll('*').length") == elements


def test_everything_has_a_name_and_fits_on_a_phone(page):
    controls = page.browser.find_elements("css selector", "input, button, select, canvas:not(.swatch)")
    assert [control.accessible_name.split(" GD(")[0] for control in controls] == [
        "Map of the loss over θ₁ and θ₂", "To start", "Back", "Play", "Step", "Step", "Speed", "Surface", "GD",
        "Momentum Momentum(lr=0.004, momentum=0.9)", "Adam Adam(lr=0.1)", "SAM SAM(GD(lr=0.004), rho=0.8)",
        "lr of GD, Momentum and SAM", "momentum of Momentum", "rho of SAM, a distance on the map", "lr of Adam",
        "Copy a link to this",
    ]  # fmt: skip
    command = page.browser.execute_cdp_cmd
    command("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
    command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]})
    try:
        page.open()
        assert page.js("document.documentElement.scrollWidth") == 360
        for touched in page.browser.find_elements("css selector", "button, select, .slider input, .method"):
            place = touched.rect
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= 360
            assert place["height"] >= 44
        assert page.find("#speed").get_attribute("value") == "2"
    finally:
        command("Emulation.clearDeviceMetricsOverride", {})
        command("Emulation.setEmulatedMedia", {"features": []})


def test_the_policy_forbids_every_request(browser):
    Page(browser).open()
    code = """
        const done = arguments[arguments.length - 1];
        document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective), { once: true });
        fetch("http://127.0.0.1:9/").catch(() => {});"""
    assert browser.execute_async_script(code) == "connect-src"
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]
