# SPDX-License-Identifier: Apache-2.0
"""The page of `tern serve` in a browser, with the real server behind it: in one process,
    and on three workers.
Answers stream and are stopped, the picture of the cluster shows who works, and what the policy forbids does
not happen.  What no real server says is in page_alone.py.
"""
import re

import browser
from lab import Lab, wait_until
from serving import Server


class Page:
    def __init__(self, web):
        self.web, self.js = web, web.js

    def until(self, script, seconds=60):
        return wait_until(lambda: self.js("return " + script), seconds)

    def text(self, selector):
        """Of the last element that the selector means."""
        return self.js("const a = [...document.querySelectorAll(arguments[0])].pop(); "
                       "return a ? a.textContent : ''", selector)

    def ask(self, text):
        self.web.click("#prompt")
        self.web.type("#prompt", text)
        self.web.keys("Enter")

    def idle(self):
        return self.until("chat.runs.size === 0", 60)


def check_served(lab, server):
    """The page and its headers, as bytes."""
    page = server.get("/")
    policy = page.headers.get("content-security-policy", "")
    lab.check(page.status == 200 and page.headers["content-type"].startswith("text/html") and
                  "sha256-" in policy and
              "unsafe" not in policy and "frame-ancestors 'none'" in policy,
                  "the page is served with its policy",
              page.headers)
    lab.check(page.headers.get("x-content-type-options") == "nosniff",
                  "... and may not be taken for something else")


def check_chat(lab, p, server, form):
    """One answer to its end, one stopped; form is what the page shows of where the answer comes from."""
    p.js("saved.settings = {max_tokens: 40, seed: 1, temperature: 0, ignore_eos: true}")
    p.ask("Once upon a time")
    lengths = []

    def grown():
        lengths.append(len(p.text(".message:last-child.theirs .text:not(:has(.waiting))")))
        return p.js("return chat.runs.size === 0")
    wait_until(grown)
    grown()  # what came between the look at the text and the look at its end
    lab.check(lengths and lengths[-1] > 8 and
              p.js("return $('thread').querySelectorAll('.message').length") == 2,
                  form + ": an answer comes",
              (lengths, p.text("#thread")))
    foot = p.text(".theirs .stats")
    lab.check(re.search(r"^\d+ tokens · [\d.,]+ per second · the first after [\d.]+ (ms|s)$", foot),
                  form + ": figures stand under it", foot)
    used = p.text("#context-text")
    lab.check(re.search(r"^[1-9]\d+ of 1,024 tokens$", used), form + ": the context in use is told", used)
    p.js("saved.settings = {max_tokens: 100000, seed: 1, ignore_eos: true}")
    before = server.get("/tern/cluster").json["totals"]["cancelled"]
    p.ask("And then")
    lengths.clear()
    grew = wait_until(lambda: grown() or len(set(lengths)) > 4, 60)
    lab.check(grew and p.js("return chat.runs.size === 1") and len(set(lengths)) > 4,
                  form + ": it grows while it is computed", lengths)
    p.web.keys("Escape")
    stopped = p.until("chat.runs.size === 0")
    kept = len(p.text(".theirs .text"))
    lab.check(stopped and "You stopped it here" in p.text(".theirs .foot") and kept >= lengths[-1],
              form + ": stopped, it keeps what had come", (kept, lengths[-1:]))
    ended = wait_until(lambda: server.get("/tern/cluster").json["totals"]["cancelled"] == before + 1)
    slots = wait_until(lambda: server.get("/tern/cluster").json["scheduler"]["running"] == 0)
    lab.check(ended and slots, form + ": and the server computes it no longer",
                  server.get("/tern/cluster").body)


def check_picture(lab, p, server, n):
    """An idle cluster, then one at work."""
    form = "%d workers" % n if n else "one process"
    stages = max(1, n)
    p.web.click("#cluster-toggle")
    lab.check(p.until("document.querySelectorAll('.stage').length === %d" % (stages + 1)) and
              p.js("return document.querySelectorAll('.hop').length") == stages + 1,
                  form + ": the picture has its stages and hops")
    # Steps of a moment ago have left the figures.
    quiet = p.until("[...document.querySelectorAll('.stage .state')].every(s => s.textContent === 'idle')")
    lab.check(quiet and p.text("#figures .value:first-child") != "", form + ": without work all are idle",
              p.text("#pipe"))
    steps = p.js("return lanes.steps.length ? lanes.steps[lanes.steps.length - 1].n : 0")
    p.js("""
        const was = saved.current;
        saved.settings = {max_tokens: 100000, ignore_eos: true};
        for (let i = 0; i < 3; i++) {
            chat.fresh();
            chat.send('Once upon a time');
        }""")
    busy = p.until("[...document.querySelectorAll('.stage .state')].every(s => s.textContent === 'working')")
    lab.check(busy, form + ": with work every card says so", p.text("#pipe"))
    rate = p.until("Number(figures.answers.value.textContent.replace(',', '')) > 0")
    lab.check(rate and p.until("figures.requests.value.textContent === '3'"),
              form + ": tokens per second and requests are told", p.text("#figures"))
    lab.check(p.until("lanes.steps.length && lanes.steps[lanes.steps.length - 1].n > %d + 8" % steps),
                  form + ": new steps come into the lanes")
    # As far as one can tell by clocks that are known within some time.
    unsure = sum(s["clock_within_us"] or 0 for s in server.cluster()["stages"])
    odd, astray, seen = p.js("""
        const last = lanes.steps.slice(-50);
        return [last.filter(s => !(s.stages.length === arguments[0] && s.home <= s.taken &&
                s.taken <= s.done && s.stages.every(([a, b, c]) => a <= b && b <= c))),
            last.filter(s => s.stages.some(([a], i) => i > 0 && s.stages[i - 1][2] > a + arguments[1])),
            last.length]""", stages, 5000 + unsure)
    # A few may have been told by clocks that were known less well at the time.
    lab.check(odd == [] and len(astray) <= seen / 5,
              form + ": each step goes through the stages in their order", (unsure, seen, odd, astray))
    columns = """
        lanes.set_span(arguments[0]);
        lanes.draw();
        const c = $('lanes-canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data,
            seen = new Set();
        for (let i = 0; i < d.length;
            i += 4) if (d[i + 3] > 250) seen.add(d[i] + ' ' + d[i + 1] + ' ' + d[i + 2]);
        return seen.size"""
    lab.check(wait_until(lambda: p.js(columns, 1e4) > 12), form + ": and are drawn")
    if n:
        hops = "[...document.querySelectorAll('.hop')].map(e => e.textContent)"
        lab.check(p.until(hops + ".every(t => /p50 (< )?[0-9.]+ (µs|ms|s) . p99 .*[kM]?B\\/s/.test(t))"),
                  form + ": hops have their times and bytes", p.js("return " + hops))
    lab.check(p.until("document.querySelectorAll('.slots li').length === 3"),
              form + ": three requests are at work")
    p.js("chat.stop_all()")
    p.idle()
    p.web.click("#cluster-close")


def check_clean(lab, web, url, form):
    """Nothing was refused, nothing failed, nobody else was asked."""
    wrong = [e["message"] for e in web.listen() if e["level"] in ("WARNING", "SEVERE") and
        "Canvas2D" not in e["message"]]
    lab.check(wrong == [], form + ": the console has nothing to say, and the policy nothing to refuse", wrong)
    others = {u for u in web.requests if not u.startswith((url, "data:", "blob:"))}
    lab.check(others == set(), form + ": no request goes elsewhere", others)


def check_refusals(lab, p):
    """What the policy forbids, tried in the page itself."""
    p.js("""
        window.hit = 0;
        for (const make of [() => { const s = document.createElement('script'); s.append('window.hit = 1');
            document.body.append(s); },
            () => { const i = document.createElement('img'); i.setAttribute('onerror', 'window.hit = 2');
                i.src = '/x'; document.body.append(i); },
            () => { document.body.innerHTML = '<b>x</b>'; }, () => { const a = document.createElement('a');
                a.href = 'javascript:window.hit=3';
                document.body.append(a); a.click(); }]) {
            try { make(); } catch (e) { /* refused */ }
        }""")
    p.until("false", 0.5)
    lab.check(p.js("return window.hit === 0 && $('log') !== null"),
              "the policy lets no other script run, and no markup be made of text")
    p.web.listen()
    p.web.console.clear()


def check_key(lab, web):
    """A server with a key: the page comes without it, answers do not."""
    server = Server(lab, key="secret-of-the-page")
    p = Page(web)
    web.go(server.url + "/")
    lab.check(p.until("/needs a key/.test($('health').textContent)"),
                  "a page without the key says what it needs")
    p.js("saved.settings = {max_tokens: 10, ignore_eos: true}")
    p.ask("Hello")
    p.until("document.querySelector('.trouble input')")
    web.type(".trouble input", "secret-of-the-page")
    web.keys("Enter")
    lab.check(p.until("chat.facts.ctx === 1024") and p.idle() and len(p.text(".theirs .text")) > 0,
              "given the key, it works", p.text("#thread"))
    server.check_stop()


def run(lab, web, n):
    """Both ways of talking: without a form of chat on one process, with one on workers."""
    form = "%d workers" % n if n else "one process"
    # Answers that would never end, however fast the machine is: their context is shifted.  And not faster
    # than a browser on the same machine can show.
    where = ["--local", n, "--chat-template", "chatml"] if n else []
    server = Server(lab, *where, "-t", 1, "--cpu", "ref", "--context-shift")
    p = Page(web)
    if not n:
        check_served(lab, server)
    web.go(server.url + "/")
    lab.check(p.until("chat.facts.ctx === 1024") and "fable" in p.text("#model"),
                  form + ": the page knows the model")
    lab.check(p.js("return chat.facts.plain") == (n == 0), form + ": and how to talk to it")
    check_picture(lab, p, server, n)
    p.js("chat.fresh()")
    check_chat(lab, p, server, form)
    check_clean(lab, web, server.url, form)
    if not n:
        check_refusals(lab, p)
    server.check_stop()


def main():
    lab = Lab()
    web = browser.begin(lab)
    web.size(1440, 900)
    run(lab, web, 0)
    web.requests.clear()
    run(lab, web, 3)
    check_key(lab, web)
    web.close()
    lab.end()


if __name__ == "__main__":
    main()
