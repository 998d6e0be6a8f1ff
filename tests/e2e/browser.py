# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven through chromedriver's WebDriver protocol with the standard library alone.

What the page writes to its console, what its policy refuses and every request it makes are recorded.  Nothing
of the browser's own may leave the machine, so its background services are switched off.
"""
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server", "--force-color-profile=srgb"]
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "Shift": "\ue008", "ArrowLeft": "\ue012",
        "ArrowRight": "\ue014", "Space": " "}


def missing():
    """Why there can be no browser here, or None."""
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            return "%s is not installed (deploy/install-packages test)" % program
    return None


def begin(lab):
    """A browser; without one on this machine the test ends here, skipped."""
    why = missing()
    if why:
        lab.skip(why)
        lab.end()
    return Browser(lab)


class WebDriverError(Exception):
    pass


class Browser:
    def __init__(self, lab):
        """`lab` ends the driver with the test."""
        self.dir = tempfile.mkdtemp(prefix="tern-browser-", dir=lab.dir)
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       env=dict(os.environ, HOME=self.dir), start_new_session=True)
        lab.children.append(self.driver)
        port = None
        for raw in self.driver.stdout:
            found = re.search(rb"successfully on port (\d+)", raw)
            if found:
                port = int(found.group(1))
                break
        if port is None:
            raise WebDriverError("chromedriver does not say its port")
        threading.Thread(target=self.driver.stdout.read, daemon=True).start()
        self.base = "http://127.0.0.1:%d" % port
        flags = FLAGS + ["--user-data-dir=" + os.path.join(self.dir, "profile")]
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": flags},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}})
        self.console, self.requests = [], []
        self.session = "/session/" + answer["sessionId"]
        self.go("about:blank")
        self.listen() # what the browser's own first page did
        self.console, self.requests = [], []

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method,
                                         headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as e:
            value = json.load(e)["value"]
            raise WebDriverError("%s: %s" % (value["error"], value["message"].split("\n")[0])) from None

    def close(self):
        try:
            self.call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait()

    def go(self, url):
        self.call("POST", self.session + "/url", {"url": url})

    def js(self, script, *args):
        """Runs the body of a function in the page; what it returns.  A string argument stays a string."""
        return self.call("POST", self.session + "/execute/sync", {"script": script, "args": list(args)})

    def find(self, selector):
        return self.call("POST", self.session + "/element",
                         {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.call("POST", "%s/element/%s/click" % (self.session, self.find(selector)), {})

    def type(self, selector, text):
        self.call("POST", "%s/element/%s/value" % (self.session, self.find(selector)), {"text": text})

    def keys(self, *names):
        """Keys to whatever has the focus, one after the other; "Shift+Enter" holds the first."""
        actions = []
        for name in names:
            parts = [KEYS.get(part, part) for part in (name.split("+") if len(name) > 1 else [name])]
            actions += [{"type": "keyDown", "value": p} for p in parts]
            actions += [{"type": "keyUp", "value": p} for p in reversed(parts)]
        self.call("POST", self.session + "/actions", {"actions": [{"type": "key", "id": "keys",
                                                                   "actions": actions}]})

    def move(self, selector, x, y):
        """The pointer, to a place counted from the middle of an element."""
        origin = {ELEMENT: self.find(selector)}
        self.call("POST", self.session + "/actions", {"actions": [{
            "type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"},
            "actions": [{"type": "pointerMove", "duration": 50, "x": x, "y": y, "origin": origin}]}]})

    def focused(self):
        return self.js("const e = document.activeElement; return e.id || e.textContent.trim() || e.tagName")

    def devtools(self, command, **params):
        return self.call("POST", self.session + "/goog/cdp/execute", {"cmd": command, "params": params})

    def size(self, width, height, phone=False):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=2 if phone else 1, mobile=phone)

    def media(self, scheme):
        self.devtools("Emulation.setEmulatedMedia",
                      features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("GET", self.session + "/screenshot")))

    def listen(self):
        """Collects the console and the requests since the last call."""
        self.console += self.call("POST", self.session + "/se/log", {"type": "browser"})
        for entry in self.call("POST", self.session + "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        return self.console
