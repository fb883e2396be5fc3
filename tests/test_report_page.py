"""The page of a run in a browser: headless Chromium, by Playwright. Without either of them these tests are skipped."""

import importlib.util
import json
import re
import shutil
from functools import cache

import jax
import numpy as np
import pytest

from jaxgen import report
from jaxgen.commands import compare
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.report import live
from tests.support.run_folder import MODULES, trained_variables, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [
    name
    for name, there in (("playwright", importlib.util.find_spec("playwright")), ("chromium", CHROMIUM))
    if not there
]
pytestmark = [
    pytest.mark.unoptimized,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {' and '.join(MISSING)}"),
]

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
DRAWN = "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
LAPTOP = {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a run of an experiment. Its weights are float32, so that numbers can be compared closely."""

    @cache
    def write(name):
        folder = write_run(tmp_path_factory.mktemp(name) / "run", name)
        if name == "vae_mnist":
            means = {"0": [1.0, 0.5], "1": [-1.5, 1.0]}
            (folder / "final" / "latent_points.json").write_text(json.dumps({"means": means}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(live, "_SMALLEST_CHANGE", -1)
            return report.write(folder)

    return write


@pytest.fixture
def opened(browser):
    """Opens a page without a network. At the end of the test nothing may have gone wrong, or been asked for, in it."""
    contexts, problems = [], []

    def open_page(path, **options):
        context = browser.new_context(offline=True, **(options or LAPTOP))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        page.evaluate("Promise.all((window.jaxgen?.engines ?? []).map((engine) => engine.ready))")
        page.evaluate(DRAWN)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def compute(page, network, *inputs):
    """The outputs of one of the page's networks for one example."""
    outputs = page.evaluate(
        "([network, inputs]) => jaxgen.engines[0].run(network, inputs).then((found) => found.map((x) => [...x]))",
        [network, [np.asarray(x).ravel().tolist() for x in inputs]],
    )
    return [np.array(output) for output in outputs]


def pixels(page, name):
    """The pixels of the canvas with this label."""
    return page.evaluate(
        """(name) => {
          const canvas = document.querySelector(`canvas[aria-label^="${name}"]`);
          return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
        }""",
        name,
    )


def look(page, name):
    """What the canvas with this label shows, as one text: to compare, much faster than its pixels."""
    return page.evaluate("(name) => document.querySelector(`canvas[aria-label^='${name}']`).toDataURL()", name)


def changes(page, name, before):
    """Wait until the canvas with this label shows something else; return that."""
    for _ in range(200):
        if (now := look(page, name)) != before:
            return now
        page.wait_for_timeout(50)
    raise AssertionError(f"{name} has not changed")


def until(page, condition):
    """Wait until a JavaScript expression is true. (`wait_for_function` takes `eval`, which the page does not allow.)"""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {condition}")


def settled(page, everything=True):
    """Wait until the page has shown what it was asked for; without `everything`, a map may still be drawn."""
    condition = "jaxgen.engines.every((engine) => engine.idle" + (
        " && engine.waiting.size === 0)" if everything else ")"
    )
    until(page, condition)
    page.evaluate(DRAWN)
    until(page, condition)


def drag(page, locator, *places):
    """Press, move and release, at places given as shares of the element's box."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


# --- Numbers ----------------------------------------------------------------------------------------------------------


def test_vae_computes_what_jax_does(opened, written):
    page = opened(written("vae_mnist"))
    module, variables = MODULES["vae_mnist"], trained_variables(MODULES["vae_mnist"])
    z = np.array([[0.7, -1.2]], np.float32)
    image = np.asarray(vae.decode(module, variables, z))
    np.testing.assert_allclose(compute(page, "decode", z)[0], image.ravel(), atol=1e-4)
    mean, log_variance = module.apply(variables, image, method="encode")
    found = compute(page, "encode", image)
    np.testing.assert_allclose(found[0], np.ravel(mean), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(found[1], np.ravel(log_variance), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["dcgan_mnist", "dcgan_digits"])
def test_samples_of_a_seed_are_those_of_jaxgen(name, opened, written):
    page = opened(written(name))
    module, variables = MODULES[name], trained_variables(MODULES[name])
    page.get_by_label("Seed", exact=True).fill("7")
    page.keyboard.press("Enter")
    settled(page)
    expected = np.asarray(dcgan.sample(module, variables, jax.random.key(7), 16))
    low = -1 if name == "dcgan_digits" else 0
    for number in (1, 16):
        shown = np.array(pixels(page, f"sample {number}")).reshape(-1, 4)[:, 0]
        levels = 255 * (expected[number - 1].ravel() - low) / (1 - low)
        np.testing.assert_allclose(shown, levels, atol=0.51)  # rounded to whole levels
    z = np.asarray(module.prior(jax.random.key(7), 2))[1:]
    np.testing.assert_allclose(compute(page, "generate", z)[0], expected[1].ravel(), atol=1e-4)


def test_conditional_generator_draws_the_class_that_is_chosen(opened, tmp_path):
    module = dcgan.DigitsGenerator(classes=3)
    path = report.write(write_run(tmp_path / "run", "dcgan_digits", module, data={"classes": ["cat", "dog", "cow"]}))
    page = opened(path)
    settled(page)
    before = look(page, "The generated image")
    page.get_by_label("Class").select_option("cow")
    changes(page, "The generated image", before)
    z = module.prior(jax.random.key(0), 1)
    image = np.asarray(module.apply(trained_variables(module), z, np.array([2]))).ravel()
    np.testing.assert_allclose(compute(page, "generate", z, [2])[0], image, atol=2 / 255)  # rounded to float16


def test_autoencoder_computes_what_jax_does(opened, written):
    page = opened(written("conv_autoencoder"))
    module, variables = MODULES["conv_autoencoder"], trained_variables(MODULES["conv_autoencoder"])
    image = np.random.default_rng(1).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    (code,) = compute(page, "encode", image)
    (back,) = compute(page, "decode", code)
    np.testing.assert_allclose(back, np.ravel(autoencoder.reconstruct(module, variables, image)), atol=1e-4)


def test_completion_computes_what_jax_does(opened, written):
    page = opened(written("rnn_complete"))
    image = np.random.default_rng(1).uniform(size=(1, 56, 56, 1)).astype(np.float32)
    for number, cell in enumerate(("lstm", "gru")):
        rows = page.evaluate(
            """async ([cell, image]) => {
              const rows = {};
              const keep = (row, values) => (rows[row] = [...values]);
              await jaxgen.engines[cell].ask({task: "complete", cell, image}, keep);
              return rows;
            }""",
            [number, image.ravel().tolist()],
        )
        module = completion.RowCompleter(cell, 256, 56)
        expected = np.asarray(completion.complete(module, trained_variables(module), image, 28))[0, :, :, 0]
        assert sorted(map(int, rows)) == list(range(28, 56))
        for row, values in rows.items():
            np.testing.assert_allclose(values, expected[int(row)], atol=1e-4)


# --- Use --------------------------------------------------------------------------------------------------------------


def test_latent_plane_follows_pointer_and_keyboard(opened, written):
    page = opened(written("vae_mnist"))
    plane = page.get_by_label("Latent plane.")
    settled(page, everything=False)
    image = look(page, "The decoded image")
    plane.hover(position={"x": 20, "y": 30})
    image = changes(page, "The decoded image", image)
    reading = page.get_by_text("z = (").inner_text()
    assert re.fullmatch(r"z = \(−[\d.]+, [\d.]+\)", reading)
    plane.focus()
    page.keyboard.press("Shift+ArrowRight")
    changes(page, "The decoded image", image)
    assert page.get_by_text("z = (").inner_text() != reading
    page.get_by_role("button", name="1", exact=True).click()  # the mean of a class
    assert page.get_by_text("z = (").inner_text() == "z = (−1.50, 1.00)"
    page.get_by_label("z₂").fill("0.25")
    assert page.get_by_text("z = (").inner_text() == "z = (−1.50, 0.25)"


def test_drawing_lands_on_the_latent_plane(opened, written):
    page = opened(written("vae_mnist"))
    before = look(page, "Latent plane")
    drag(page, page.get_by_label("Drawing pad"), (0.3, 0.3), (0.6, 0.3), (0.4, 0.8))
    landed = page.get_by_text("It lands at")
    landed.wait_for()
    settled(page, everything=False)
    drawn = np.array(pixels(page, "Drawing pad")).reshape(32, 32, 4)[..., 0] / 255
    assert drawn.max() > 0.9
    mean, log_variance = compute(page, "encode", drawn)
    numbers = [float(text.replace("−", "-")) for text in re.findall(r"−?\d+\.\d+", landed.inner_text())]
    np.testing.assert_allclose(numbers[::2], mean, atol=0.02)
    np.testing.assert_allclose(numbers[1::2], np.exp(log_variance / 2), atol=0.02)
    assert look(page, "Latent plane") != before
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Draw, and see where it lands.").wait_for()


def test_drawing_with_the_keyboard(opened, written):
    page = opened(written("vae_mnist"))
    page.get_by_label("Drawing pad").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.down(" ")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    page.keyboard.up(" ")
    page.get_by_text("It lands at").wait_for()


def test_touch_moves_on_the_latent_plane_of_a_phone(opened, written):
    page = opened(written("vae_mnist"), **PHONE)
    plane = page.get_by_label("Latent plane.")
    plane.scroll_into_view_if_needed()
    plane.tap(position={"x": 40, "y": 60})
    assert "−" in page.get_by_text("z = (").inner_text().split(",")[0]


def test_generator_has_sliders_and_walks(opened, written):
    page = opened(written("dcgan_digits"))
    settled(page)
    image = look(page, "The generated image")
    page.get_by_label("z₁", exact=True).fill("2.5")
    image = changes(page, "The generated image", image)
    page.get_by_role("button", name="Walk between samples").click()
    image = changes(page, "The generated image", image)
    changes(page, "The generated image", image)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="sample 3", exact=True).click()
    settled(page)
    assert look(page, "The generated image") == look(page, "sample 3")


def test_both_cells_finish_a_drawing(opened, written):
    page = opened(written("rnn_complete"))
    settled(page)
    both = {name: look(page, f"Completed by the {name}") for name in ("LSTM", "GRU")}
    drag(page, page.get_by_label("Upper half"), (0.2, 0.2), (0.8, 0.3))
    for name, before in both.items():
        changes(page, f"Completed by the {name}", before)
    settled(page)
    drawn = np.array(pixels(page, "Upper half")).reshape(56, 56, 4)
    completed = np.array(pixels(page, "Completed by the LSTM")).reshape(56, 56, 4)
    np.testing.assert_allclose(completed[:28], drawn[:28], atol=1)
    assert page.get_by_text(re.compile(r"28 rows in \d+ ms")).count() == 2


def test_code_of_the_autoencoder_can_be_changed(opened, written):
    page = opened(written("conv_autoencoder"))
    settled(page)
    encoded = look(page, "What the code becomes")
    page.get_by_label("Map 3 of the code").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("+")
    assert page.get_by_text("Map 3, row 2, column 1").is_visible()
    changed = changes(page, "What the code becomes", encoded)
    drag(page, page.get_by_label("Map 5 of the code"), (0.2, 0.5), (0.8, 0.5))
    changes(page, "What the code becomes", changed)
    page.get_by_role("button", name="As encoded").click()
    settled(page)
    assert look(page, "What the code becomes") == encoded


def test_picture_of_ones_own_is_encoded(opened, written, tmp_path):
    from PIL import Image

    path = tmp_path / "mine.png"
    Image.new("RGB", (90, 64), (200, 30, 30)).save(path)
    page = opened(written("conv_autoencoder"))
    settled(page)
    before = look(page, "What the code becomes")
    page.set_input_files("input[type=file]", path)
    changes(page, "What the code becomes", before)
    assert pixels(page, "A picture")[:4] == [200, 30, 30, 255]


def test_values_are_read_off_curves(opened, written):
    page = opened(written("dcgan_digits"))
    card = page.locator("figure.chart", has_text="Loss")
    assert "epoch 3" in card.inner_text()
    card.locator(".plot").focus()
    page.keyboard.press("Home")
    assert re.search(r"epoch 1\s*loss 1\b", card.locator(".reading").inner_text())
    card.locator(".plot").scroll_into_view_if_needed()
    box = card.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 40)
    assert re.search(r"epoch 2\s*loss 0.5", card.locator(".reading").inner_text())
    page.mouse.move(0, 0)
    linear = card.locator("path").get_attribute("d")
    card.get_by_role("button", name="logarithmic").click()
    assert card.locator("path").get_attribute("d") != linear
    frechet = page.locator("figure.chart", has_text="Fréchet distance")
    assert frechet.locator(".baseline").count() == 1


def test_pictures_have_a_slider_of_epochs(opened, written):
    page = opened(written("dcgan_digits"))
    card = page.locator("#pictures figure")
    last = card.locator("img").get_attribute("src")
    card.get_by_label("Epoch", exact=True).fill("0")
    assert card.locator("img").get_attribute("src") != last
    assert card.locator("img").get_attribute("alt") == "Original, before training"


@pytest.mark.parametrize("name", ["vae_mnist", "dcgan_digits", "rnn_complete", "conv_autoencoder"])
def test_page_fits_on_a_phone(name, opened, written):
    page = opened(written(name), **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    too_wide = """[...document.querySelectorAll("main *")]
      .filter((x) => x.getBoundingClientRect().right > 361).map((x) => x.outerHTML)"""
    assert page.evaluate(too_wide) == []


@pytest.mark.parametrize("name", ["vae_mnist", "dcgan_digits", "rnn_complete", "conv_autoencoder"])
def test_everything_that_can_be_used_has_a_name(name, opened, written):
    page = opened(written(name))
    nameless = """[...document.querySelectorAll("button, input:not(.hidden), select, canvas[tabindex], img")]
      .filter((x) => !(x.getAttribute("aria-label") || x.getAttribute("alt") || x.textContent.trim() ||
        x.querySelector("[alt], [aria-label]") || x.closest("label")?.textContent.trim()))
      .map((x) => x.outerHTML)"""
    assert page.evaluate(nameless) == []


# --- Whole pages ------------------------------------------------------------------------------------------------------


def test_page_of_a_training_reloads_itself_and_keeps_what_is_set(opened, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxgen.report.content._RELOAD", 2)
    path = report.write(write_run(tmp_path / "run", "dcgan_digits", epochs=9, finished=False))
    later = report.write(write_run(tmp_path / "later", "dcgan_digits", epochs=9))
    page = opened(path)
    assert page.get_by_text("in training: epoch 9 of 9").is_visible()
    assert page.get_by_text("The model joins this page when the training is finished.").is_visible()
    page.get_by_label("Epoch", exact=True).fill("4")
    page.wait_for_event("load")
    page.locator("#pictures img[alt='Original, after epoch 4']").wait_for()
    later.replace(path)
    page.get_by_text("finished", exact=True).wait_for()
    page.get_by_label("The generated image").wait_for()
    loads = []
    page.on("load", lambda loaded: loads.append(loaded))
    page.wait_for_timeout(3000)
    assert not loads


HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def test_names_are_shown_and_never_run(opened, tmp_path):
    folder = write_run(
        tmp_path / "run", "dcgan_digits", data={"name": HOSTILE, "classes": [HOSTILE]}, options={"note": HOSTILE}
    )
    (folder / "events.jsonl").write_text(json.dumps({"event": "note", "epoch": 1, "step": 0, "text": HOSTILE}) + "\n")
    figures = {HOSTILE: {"value": 1.0, "baselines": {HOSTILE: 2.0}, "unit": HOSTILE}}
    (folder / "final" / "figures.json").write_text(json.dumps(figures))
    page = opened(report.write(folder))
    assert page.evaluate("window.hacked") is None
    assert "window.hacked" in page.locator("h1").inner_text()
    assert page.locator("img[src=x]").count() == 0


def test_comparison_overlays_runs(opened, tmp_path):
    first = write_run(tmp_path / "a", "dcgan_digits")
    second = write_run(tmp_path / "b", "dcgan_digits", options={"learning_rate": 0.01}, epochs=2)
    path = tmp_path / "comparison.html"
    compare.run(compare.Options(paths=(first, second), out=path))
    page = opened(path)
    card = page.locator("figure.chart", has_text="Loss")
    assert card.locator("path").count() == 2
    settings = page.locator("#settings").inner_text()
    assert "Learning rate" in settings
    assert "0.01" in settings
    assert "Batch size" not in settings
    row = page.locator("#figures tr", has_text="Fréchet distance")
    assert row.locator("td").all_inner_texts() == ["6", "7"]
    assert row.locator(".best").inner_text() == "6"


def test_map_follows_the_other_latent_dimensions(opened, tmp_path):
    page = opened(report.write(write_run(tmp_path / "run", "vae_mnist", vae.ConvVAE(3, width=8))))
    page.wait_for_timeout(400)  # the map begins a moment after the image
    settled(page)
    page.get_by_label("z₁", exact=True).fill("1")
    settled(page)
    before = look(page, "Latent plane")
    page.get_by_label("z₃", exact=True).fill("2.5")
    settled(page)
    assert look(page, "Latent plane") != before  # z₃ itself is not on it
    assert page.get_by_text("z = (").inner_text() == "z = (1.00, 0.00, 2.50)"
