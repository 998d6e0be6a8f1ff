# SPDX-License-Identifier: Apache-2.0
"""The page of `tern serve` in a browser, before a server of this test's own that says what a model or a
cluster may ever say: hostile Markdown, answers that break off, refusals, news that stop.  With
the real server: page.py.
"""
import json
import os
import re
import time

import browser
from lab import Lab, wait_until
from page_server import Faker

KEY = "a key for this test"
HOSTILE = [
    "<img src=x onerror=\"window.hit=1\">",
    "<script>window.hit=1</script>",
    "<svg/onload=window.hit=1><iframe srcdoc='<script>parent.hit=1</script>'>",
    "[a link](javascript:window.hit=1)",
    "[a link](  JaVaScRiPt:window.hit=1 \"title\")",
    "[a link](data:text/html,<script>parent.hit=1</script>)",
    "[a link](vbscript:x) and [another](file:///etc/passwd) and [one](//127.0.0.1/x)",
    "![a picture](javascript:window.hit=1) ![another](http://127.0.0.1:9/x.png\"onerror=\"window.hit=1)",
    "<javascript:window.hit=1> <a href=\"javascript:window.hit=1\">x</a>",
    "[x](http://127.0.0.1:9/\"onmouseover=\"window.hit=1)",
    "```html\" onmouseover=\"window.hit=1\n</code></pre><img src=x onerror=window.hit=1>\n```",
    "| <img src=x onerror=window.hit=1> | b |\n| --- | --- |\n| <script>window.hit=1</script> | `<b>` |",
    "# <img src=x onerror=window.hit=1>\n\n> <script>window.hit=1</script>\n\n- <svg onload=window.hit=1>\n",
    "&lt;img src=x onerror=window.hit=1&gt; &#106;avascript: {{constructor.constructor('window.hit=1')()}}",
    "<style>body{display:none}</style><meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href=http://127.0.0.1:9/><form action=http://127.0.0.1:9/><input name=q><button>x</button></form>",
    "\x00\x1b[2J\u202egnp.exe\u2066 [x](http://a.example\u0000/)",
]
# Source, and what it must become.
FORMS = [
    ("a **b** *c* ~~d~~ `e*f*` g_h_i", "<p>a <strong>b</strong> <em>c</em> <del>d</del>"
     " <code>e*f*</code> g_h_i</p>"),
    ("***a** b*", "<p><em><strong>a</strong> b</em></p>"),
    ("2 * 3 * 4 and \\*x\\*", "<p>2 * 3 * 4 and *x*</p>"),
    ("# A #\n## B\ntext", "<h3 class=\"h1\">A</h3><h4 class=\"h2\">B</h4>"
     "<p>text</p>"),
    ("- a\n- b\n  - c\n\n1) d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"
     "<ol><li>d</li></ol>"),
    ("3. a\n4. b", "<ol start=\"3\"><li>a</li><li>b</li></ol>"),
    ("- [x] done\n- [ ] not", "<ul><li class=\"task\"><span class=\"check\">☑ </span>done</li>"
     "<li class=\"task\"><span class=\"check\">☐ </span>not</li></ul>"),
    ("- \u05d0 b\n- c\n\n> 1 \u05d1", "<ul dir=\"rtl\"><li>\u05d0 b</li><li>c</li></ul>"
     "<blockquote dir=\"rtl\"><p>1 \u05d1</p></blockquote>"),
    ("> a\n> b\n\n---\nc", "<blockquote><p>a\nb</p></blockquote><hr>"
     "<p>c</p>"),
    ("<b>x</b> & y", "<p>&lt;b&gt;x&lt;/b&gt; &amp; y</p>"),
    ("a [b](ftp://x) c", "<p>a [b](ftp://x) c</p>"),
]
# Each as long as an answer may be, and each with a way to make a careless reader slow.
SLOW = {"brackets": "[" * 60000, "links": "[a](" * 20000, "ticks": "`a``b```c" * 8000,
        "stars": "*a **b " * 12000, "closers": "a* " * 30000, "mixed": "*_~~" * 20000,
            "spaces": " " * 60000 + "x",
        "inner spaces": "a" + " " * 60000 + "b", "heading": "# a" + " " * 60000 + "b", "quotes": "> " * 30000,
        "lists": "- " * 30000, "rules": "* " * 30000 + "x", "pipes": "|" * 60000 + "\n" + "|-" * 30000,
        "fences": "```\n~~~\n" * 8000, "escapes": "\\" * 60000, "numbers": "1. " * 20000,
        "lines": "a\n" * 30000, "indent": "".join(" " * (i % 40) + "- x\n" for i in range(4000)),
        "urls": "https://" * 9000, "parens": "https://a/" + ")" * 60000}

# How long each of these takes to become elements, in milliseconds, and how deep they are.
READ_SLOW = """
    const out = {};
    for (const [name, text] of Object.entries(arguments[0])) {
        const box = document.createElement('div'), begun = performance.now();
        markdown_into(box, text);
        out[name] = [Math.round(performance.now() - begun), (node => {
            let most = 0;
            for (let all = [[node, 0]]; all.length;) {
                const [e, d] = all.pop();
                most = Math.max(most, d);
                for (const c of e.children) all.push([c, d + 1]);
            }
            return most;
        })(box)];
    }
    return out"""


def pieces(text, n=3):
    return [text[i:i + n] for i in range(0, len(text), n)]


class Page:
    def __init__(self, lab, web, server):
        self.lab, self.web, self.server = lab, web, server

    def js(self, script, *args):
        return self.web.js(script, *args)

    def until(self, script, seconds=60):
        return wait_until(lambda: self.js("return " + script), seconds)

    def ask(self, text, wait=True):
        """Writes into the field and sends, as a person does."""
        self.web.click("#prompt")
        self.web.type("#prompt", text)
        self.web.keys("Enter")
        if wait:
            self.until("chat.runs.size === 0")

    def text(self, selector):
        """Of the last element that the selector means."""
        return self.js("const a = [...document.querySelectorAll(arguments[0])].pop(); "
                       "return a ? a.textContent : null", selector)

    def answer(self):
        return self.text(".theirs .text")


def check_policy(lab, page, policy):
    lab.check(len(page) <= 128 * 1024, "the page has at most 128 KiB", "%d bytes" % len(page))
    lab.check("unsafe" not in policy and "default-src 'none'" in policy and "'sha256-" in policy and
              "require-trusted-types-for 'script'" in policy,
                  "the policy allows scripts by their hashes alone", policy)
    text = page.decode()
    lab.check(not re.search(r"\.(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function",
                  text),
              "the scripts make nothing of text but text")
    outside = set(re.findall(r"https?://[^\s'\"<>)]+", text)) - {"http://www.w3.org/2000/svg"}
    lab.check(not [u for u in outside if not u.startswith("https?:\\/\\/")], "the page names no other host",
                  outside)


def check_hostile(lab, p):
    """Every payload streamed as an answer; then the list of elements that may ever be in one."""
    good = []
    for payload in HOSTILE:
        p.server.answer = pieces(payload, 7)
        p.js("chat.send('x')")
        p.until("chat.runs.size === 0")
        left = p.js("""
            const box = [...document.querySelectorAll('.theirs .text')].pop(),
                known = ('P H3 H4 H5 H6 UL OL LI BLOCKQUOTE HR EM STRONG DEL CODE PRE DIV SPAN BUTTON A ' +
                    'TABLE THEAD TBODY TR TH TD svg use').split(' ');
            const bad = [...box.querySelectorAll('*')].filter(e => !known.includes(e.tagName) ||
                [...e.attributes].some(a => /^on/.test(a.name) || a.name === 'style' ||
                    a.name === 'src' || a.name === 'srcdoc') ||
                (e.tagName === 'A' && (!/^https?:$/.test(e.protocol) || !/noopener noreferrer/.test(e.rel))));
            return [window.hit === undefined, bad.map(e => e.outerHTML), box.textContent]""")
        good.append(left[0] and not left[1] and (not payload.startswith("<") or payload in left[2]))
        if not good[-1]:
            lab.check(False, "a hostile answer stays text", "%r\n%r" % (payload, left))
    lab.check(all(good), "%d hostile answers stay text: nothing runs, nothing is fetched" % len(good))
    p.js("""[...document.querySelectorAll('.theirs a')].forEach(a =>
        a.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})))""")
    lab.check(p.js("return window.hit === undefined && getComputedStyle(document.body).display === 'grid'"),
              "nor later")


def check_forms(lab, p):
    wrong = p.js("""
        return arguments[0].map(([source, wanted]) => {
            const box = document.createElement('div');
            markdown_into(box, source);
            return box.innerHTML === wanted ? null : [source, box.innerHTML];
        }).filter(x => x)""", FORMS)
    lab.check(not wrong, "%d forms of Markdown become what they say" % len(FORMS), wrong)
    whole = "\n\n".join(source for source, _ in FORMS)
    whole += "\n\n```c\nint x;\n\n  y\n```\n\n| a | b |\n|---|--:|\n| 1 | `2` |\n| 3 | 4 |\n\nend of it"
    same = p.js("""
        const [source] = arguments, wanted = document.createElement('div'), wrong = [];
        markdown_into(wanted, source);
        for (let size = 1; size < 24; size++) {
            const box = document.createElement('div'), md = new Markdown(box);
            for (let i = 0; i < source.length; i += size) {
                md.push(source.slice(i, i + size));
                md.draw(true);
            }
            md.end();
            if (box.innerHTML !== wanted.innerHTML) wrong.push([size, box.innerHTML]);
        }
        return [wrong, wanted.querySelectorAll('table tbody tr').length,
            wanted.querySelector('.code code').textContent]""", whole)
    lab.check(same[0] == [] and same[1] == 2 and same[2] == "int x;\n\n  y",
              "a text that comes in pieces becomes what the whole does", same)
    wrong = p.js("""
        let seed = 12345;
        const random = n => (seed = (seed * 1103515245 + 12345) % 2147483648) % n, wrong = [];
        const words = ['a', 'b c', '*', '**', '_', '`', '``', '```', '~~~', '\\n', '\\n', '\\n\\n', '\\n  ',
            '\\n    ', '# ', '- ', '- ',
            '1. ', '> ', '|', '|-|', '---', '[x](http://a.example/)', '![', '](', '<b>',
                '\\\\', ' ', '\\t', '\\r\\n', '- [ ] '];
        for (let i = 0; i < 1500; i++) {
            let source = '';
            for (let k = random(24); k >= 0; k--) source += words[random(words.length)];
            const whole = document.createElement('div'), box = document.createElement('div'),
                md = new Markdown(box);
            markdown_into(whole, source);
            for (let at = 0; at < source.length;) {
                const n = 1 + random(5);
                md.push(source.slice(at, at += n));
                md.draw(true);
            }
            md.end();
            if (box.innerHTML !== whole.innerHTML) wrong.push([source, box.innerHTML, whole.innerHTML]);
        }
        return wrong.slice(0, 3)""")
    lab.check(wrong == [], "... also 1,500 random ones", wrong)
    # Work by the number of elements made, which does not depend on the machine.
    made = p.js("""
        const make = document.createElement.bind(document), counts = {};
        let n = 0;
        document.createElement = tag => { n++; return make(tag); };
        for (const [name, line] of [['code', 'x = 1;\\n'], ['list', '- an item of *some* words\\n'],
            ['table', '| a | b |\\n']]) {
            for (const lines of [200, 800]) {
                const box = make('div'), md = new Markdown(box);
                md.push(name === 'code' ? '```\\n' : name === 'table' ? '| a | b |\\n| --- | --- |\\n' : '');
                n = 0;
                for (let i = 0; i < lines; i++) {
                    md.push(line);
                    md.draw(true);
                }
                md.end();
                (counts[name] = counts[name] || []).push(n);
            }
        }
        delete document.createElement;
        return counts""")
    lab.check(all(b <= 5 * a + 40 for a, b in made.values()),
                  "four times the answer costs four times the work", made)
    slow = {}
    for _ in range(3):  # the best of some: a pause of the machine is not the page's
        for name, (ms, deep) in p.js(READ_SLOW, SLOW).items():
            slow[name] = (min(ms, slow.get(name, (ms,))[0]), deep)
        if all(ms < 3000 for ms, _ in slow.values()):
            break
    lab.check(all(ms < 3000 and deep < 60 for ms, deep in slow.values()),
              "answers made to be slow or deep are neither", slow)


def check_chat(lab, p):
    s, js = p.server, p.js
    js("saved.remove_all(); chat.show()")
    s.answer, s.pause = ["word%d " % i for i in range(40000)], 0.01
    p.ask("begin", wait=False)
    p.until("chat.runs.size === 1 && document.querySelector('.theirs .text').textContent.length > 80")
    first = len(p.answer())
    grew = wait_until(lambda: len(p.answer()) > first + 40)
    lab.check(grew, "an answer grows as it comes")
    lab.check(js("return $('send').querySelector('.sr').textContent") == "Stop",
                  "the button that sends has become Stop")
    p.web.keys("Escape")
    stopped = p.until("chat.runs.size === 0")
    kept = p.answer()
    lab.check(stopped and wait_until(lambda: s.gone == 1), "Escape stops it, and the connection is closed")
    lab.check(len(kept) > first and "You stopped it here" in p.text(".theirs .foot"),
              "what had come stays and says that it was stopped")
    s.pause, s.answer = 0, ["**two** ", "words"]
    p.web.click(".theirs [title^='Write this answer anew']")
    p.until("chat.runs.size === 0")
    lab.check(p.answer() == "two words" and len(s.bodies[-1]["messages"]) == 1, "an answer is written anew",
                  s.bodies[-1])
    foot = p.text(".theirs .stats")
    lab.check("2 tokens" in foot and "the first after" in foot, "figures stand under it", foot)
    lab.check("13 of 2,048" in p.text("#context-text"), "the context in use is told")
    p.web.click(".mine [title='Change this message']")
    p.web.keys("Shift+Enter", "z")
    lab.check(js("return $('prompt').value") == "begin\nz",
              "the last message is changed; Shift Enter begins a line")
    p.web.keys("Enter")
    p.until("chat.runs.size === 0")
    lab.check([m["content"] for m in s.bodies[-1]["messages"]] == ["begin\nz"],
                  "what followed it is dropped", s.bodies[-1])
    js("""settings.open(); settings.inputs.system.value = 'Be brief.'; settings.system_changed();
          settings.inputs.temperature.value = '0.5'; settings.inputs.seed.value = '7';
              settings.inputs.stop.value = 'END\\n\\nFIN';
          settings.inputs.top_p.value = '7'; settings.sampling_changed()""")
    lab.check(js("return settings.inputs.top_p.getAttribute('aria-invalid')") == "true",
                  "a value that cannot be is marked")
    p.web.keys("Escape")
    p.ask("more")
    body = s.bodies[-1]
    lab.check(body["messages"][0] == {"role": "system", "content": "Be brief."} and
                  body["temperature"] == 0.5 and
              body["seed"] == 7 and body["stop"] == ["END", "FIN"] and "top_p" not in body and
                  body["stream"] is True,
              "settings are sent, and only those that were made", body)
    s.answer = ["half", None]
    p.ask("break")
    lab.check("half" in p.answer() and "connection ended" in p.text("#thread"),
              "an answer that breaks off is kept and says so", p.text("#thread"))
    s.answer, s.status = ["ok"], 503
    p.ask("full")
    trouble = p.text(".trouble")
    lab.check("no room" in trouble and "<i>is</i>" in trouble, "a full queue is a sentence", trouble)
    s.code = "model_loading"
    js("document.querySelector('.trouble button').click()")
    loading = "[...document.querySelectorAll('.trouble')].some(x => x.textContent.includes('being loaded'))"
    lab.check(p.until(loading), "so is a model that is being loaded", p.text(".trouble"))
    s.status = 200
    p.until("document.querySelector('.trouble') === null && chat.runs.size === 0")
    lab.check(p.answer() == "ok" and js("return document.querySelector('.trouble') === null"),
                  "when it has been loaded, what was asked is answered without another click")


def check_keeping(lab, p):
    js, s = p.js, p.server
    kept = "return [!!localStorage.getItem('tern.saved'), !!sessionStorage.getItem('tern.saved')]"
    lab.check(js(kept) == [False, True],
              "conversations are kept in the tab alone")
    js("settings.open(); settings.inputs.keep.click(); $('settings').close()")
    lab.check(js(kept) == [True, False],
              "... and in the browser if one asks for it")
    p.web.go(s.url)
    lab.check("more" in p.text("#thread"), "they are there when the page is opened again")
    text = js("""
        let text = null;
        const real = URL.createObjectURL;
        return new Promise(done => {
            URL.createObjectURL = blob => { blob.text().then(done); return 'about:blank#'; };
            HTMLAnchorElement.prototype.click = () => {};
            export_conversations(saved.conversations, 'x');
        });""")
    exported = json.loads(text)
    n = len(exported["conversations"][0]["messages"])
    exported["conversations"][0]["messages"].append({"role": "tool", "content": "x"})
    exported["conversations"].append("nonsense")
    path = lab.write("import.json", json.dumps(exported))
    js("saved.remove_all(); chat.show(); $('import-file').hidden = false")
    p.web.type("#import-file", path)
    p.until("saved.conversations.some(c => c.messages.length)")
    lab.check(js("return saved.current.messages.length") == n and "more" in p.text("#thread"),
              "what was exported is imported, and what is not of its form is left out")
    js("$('import-file').hidden = true; chat.remove(saved.current)")
    gone = js("return saved.current.messages.length")
    js("$('toast').querySelector('button').click()")
    lab.check(gone == 0 and js("return saved.current.messages.length") == n,
                  "a deleted conversation comes back on demand")
    s.key = KEY
    s.answer = ["known"]
    p.ask("locked")
    lab.check("wants an API key" in p.text(".trouble"), "a server that wants a key is understood")
    p.web.type("#trouble-key", KEY)
    p.web.keys("Enter")
    p.until("chat.runs.size === 0 && document.querySelector('.trouble') === null")
    lab.check(p.answer() == "known" and s.keys[-1] == "Bearer " + KEY, "the key is asked for, and sent")
    lab.check(js("return !JSON.stringify(localStorage).includes(arguments[0])", KEY),
                  "the key is kept in the tab alone")
    s.key, s.plain = None, True
    p.web.go(s.url)
    p.until("chat.facts.plain === true")
    js("chat.fresh()")
    p.ask("Once upon")
    lab.check(s.bodies[-1].get("prompt") == "Once upon",
                  "a model without a form of chat goes on with the text", s.bodies[-1])
    s.plain = False


def check_cluster(lab, p):
    js, s = p.js, p.server
    p.web.go(s.url)
    p.until("chat.facts.ctx === 2048")
    time.sleep(0.3)
    lab.check(s.listeners == 0, "nobody listens for news while the picture is closed")
    p.web.click("#cluster-toggle")
    lab.check(p.until("document.querySelectorAll('.stage').length === 4") and
              wait_until(lambda: s.listeners == 1),
              "opened, it shows the coordinator and three workers")
    lab.check(p.text("#model") == "<b>model</b> · 3 workers", "names are text")
    text = p.text("#pipe")
    lab.check(all(t in text for t in ("w1", "layers 4 to 7", "busy 75 %, idle 25 %", "p50 80 µs",
                                      "p50 < 90 µs",
                  "50.0 kB/s", "silent for 900 ms",
                                      "KV up to 1.00 MB")), "cards and hops tell what there is to tell", text)
    lab.check("reading its prompt, 30 of 90" in p.text("#slots"), "requests at work are told")
    lab.check("3of 9 pages1 more kept" in p.text("#figures"), "pages kept for prefixes do not count as used",
              p.text("#figures"))
    p.until("lanes.steps.length > 8")
    drawn = """
        const c = $('lanes-canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data,
            seen = new Set();
        for (let i = 0; i < d.length;
            i += 4) if (d[i + 3] > 250) seen.add(d[i] >> 4 << 8 | d[i + 1] >> 4 << 4 | d[i + 2] >> 4);
        return seen.size"""
    many = wait_until(lambda: js("lanes.draw(); " + drawn) > 25)
    lab.check(many, "steps are drawn in the lanes")
    js("$('lanes-canvas').focus()")
    p.web.keys("ArrowRight")
    words = js("return [$('lanes-read').textContent, $('tip').hidden, lanes.paused]")
    lab.check(words[0].startswith("Step ") and "w2: way" in words[0] and
              "wait 500 µs, head and choice 1.50 ms" in words[0] and words[1] is False and words[2],
              "arrow keys go from step to step and read them out", words)
    p.web.keys("Space", "Escape")
    js("$('tables').open = true")
    lab.check(p.until("document.querySelectorAll('#tables tbody tr').length >= 8"),
                  "the same is there as tables")
    s.silent = True
    lab.check(p.until("feed.stale && /as it was/.test($('live').textContent)"),
              "news that stop are said to be old")
    s.silent = False
    lab.check(p.until("/^live/.test($('live').textContent.trim())"), "... until they come again")
    p.web.click("#cluster-close")
    lab.check(wait_until(lambda: s.listeners == 0), "closed, it asks for nothing")
    s.no_events = True
    p.web.click("#cluster-toggle")
    lab.check(wait_until(lambda: s.polls > 2), "where nothing streams it asks now and then")
    s.no_events, s.n_stages = False, 16
    p.web.go(s.url)
    p.web.click("#cluster-toggle")
    lab.check(p.until("[...document.querySelectorAll('.stage, .hop')].length === 34"),
              "sixteen stages have sixteen cards")


def check_long(lab, p):
    """What a conversation of 500 messages costs when one more comes."""
    made = p.js("""
        saved.begin();
        saved.current.messages = Array.from({length: 500}, (_, i) => ({role: i % 2 ? 'assistant' : 'user',
            content: 'Message **' + i + '**\\n\\n- a\\n- b'}));
        const make = document.createElement.bind(document), counts = [];
        let n = 0;
        document.createElement = tag => { n++; return make(tag); };
        for (let i = 0; i < 3; i++) {
            n = 0;
            chat.show();
            counts.push(n);
            saved.current.messages.push({role: 'user', content: 'one more'});
        }
        delete document.createElement;
        return [counts, document.querySelectorAll('.message').length]""")
    lab.check(made[1] == 502 and made[0][0] > 2500 and max(made[0][1:]) < 80,
              "of a long conversation only what is new is made", made)
    p.js("saved.remove_all(); chat.show()")


def check_settings(lab, p):
    said = p.js("""
        settings.open();
        const of = name => settings.inputs[name].placeholder, out = [of('temperature'), of('seed'),
            of('max_tokens'), $('set-address').value];
        $('settings').close();
        return out""")
    lab.check(said == ["0.8", "random", "no limit", p.server.url + "v1"],
              "settings tell the server's own values and its address", said)


def check_print(lab, p):
    p.js("saved.current.messages = [{role: 'user', content: 'x'}, {role: 'assistant', content: "
         "'```\\n' + 'long '.repeat(200) + '\\n```\\n\\n' + 'text\\n\\n'.repeat(200)}]; chat.show()")
    p.web.devtools("Emulation.setEmulatedMedia", media="print")
    left = p.js("""
        const shown = s => getComputedStyle(document.querySelector(s)).display !== 'none';
        return [shown('.bar'), shown('.composer'), shown('.thread'),
            $('log').scrollHeight <= $('log').clientHeight + 1, document.documentElement.scrollHeight > 4000,
            document.querySelector('pre').scrollWidth <= document.querySelector('pre').clientWidth]""")
    p.web.devtools("Emulation.setEmulatedMedia", media="")
    lab.check(left == [False, False, True, True, True, True], "on paper there is the whole conversation, and "
              "nothing else", left)
    p.js("saved.remove_all(); chat.show()")


def check_looks(lab, p):
    js = p.js
    wide = """
        const out = [];
        for (const e of [document.documentElement, $('log'), $('cluster-body'), $('settings')]) {
            if (e.scrollWidth > e.clientWidth + 1) out.push(e.id || e.tagName, e.scrollWidth, e.clientWidth);
        }
        return out"""
    for width in (360, 768, 1100, 1440):
        p.web.size(width, 740)
        bad = []
        for step in ("cluster.set_open(true)", "cluster.set_open(false)", "set_list(true)", "set_list(false)",
                     "settings.open()", "$('settings').close()"):
            js(step)
            bad += js(wide)
        lab.check(bad == [], "nothing is wider than a screen of %d pixels" % width, bad)
        js("cluster.set_open(true); $('pipe').lastElementChild.scrollIntoView()")
        lab.check(js("return $('app').getBoundingClientRect().bottom <= innerHeight + 1 && "
                     "document.querySelector('.bar').getBoundingClientRect().top === 0"),
                  "... and the page itself does not move")
        js("cluster.set_open(false)")
    js("set_list(true)")
    p.web.size(360, 740)
    lab.check(wait_until(lambda: not js("return $('app').classList.contains('with-list')")),
              "a window that gets narrow is not covered by the list")
    p.web.size(1280, 860)
    contrast = """
        const c = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        const lum = name => {
            const probe = el('span', {});
            document.body.append(probe);
            probe.style.color = 'var(--' + name + ')';
            c.fillStyle = getComputedStyle(probe).color;
            probe.remove();
            c.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...c.getImageData(0, 0, 1, 1).data].slice(0,
                3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const out = {};
        for (const fg of ['fg', 'muted', 'accent', 'good', 'bad', 'wait']) for (const bg of ['bg', 'panel',
            'quiet']) {
            const [a, b] = [lum(fg), lum(bg)].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5) out[fg + ' on ' + bg] = (a + 0.05) / (b + 0.05);
        }
        return [out, getComputedStyle(document.body).backgroundColor]"""
    grounds = []
    for scheme in ("light", "dark"):
        p.web.media(scheme)
        poor, ground = js(contrast)
        grounds.append(ground)
        lab.check(poor == {}, "every text has a contrast of 4.5 at least, %s" % scheme, poor)
    p.web.click("#theme")
    lab.check(grounds[0] != grounds[1] and js(contrast)[1] == grounds[0],
                  "light and dark as the system has it, or by choice", grounds)
    nameless = js("""
        cluster.set_open(true);
        return [...document.querySelectorAll('button, input, textarea, canvas, meter, summary')].filter(e => {
            const label = e.labels && e.labels[0];
            return !(e.textContent.trim() || e.getAttribute('aria-label') || (label &&
                label.textContent.trim()));
        }).map(e => e.outerHTML.slice(0, 120))""")
    lab.check(nameless == [], "everything one can use has a name", nameless)
    js("cluster.set_open(false); document.activeElement.blur()")
    seen, rings = [], []
    for _ in range(9):
        p.web.keys("Tab")
        seen.append(p.web.focused())
        rings.append(js("""const s = getComputedStyle(document.activeElement),
            f = getComputedStyle(document.activeElement.closest('.field') || document.body);
            return document.activeElement === document.body || (s.outlineStyle !== 'none' &&
                parseFloat(s.outlineWidth) >= 2) || f.boxShadow !== 'none'"""))
    lab.check(len(set(seen)) > 6 and all(rings), "Tab goes everywhere and one sees where one is",
                  list(zip(seen, rings)))
    js("document.activeElement.blur()")
    p.web.keys("/")
    lab.check(p.web.focused() == "prompt" and js("return $('prompt').value") == "",
                  "a slash goes to the message field")


def main():
    lab = Lab()
    web = browser.begin(lab)
    made = os.path.join(lab.build, "coordinator", "serve", "page", "page_bytes.c")
    with open(made + ".html", "rb") as f:
        page = f.read()
    with open(made, encoding="ascii") as f:
        policy = re.search(r'tern_page_csp\[\] = "(.*)";', f.read()).group(1)
    check_policy(lab, page, policy)
    server = Faker(page, policy)
    p = Page(lab, web, server)
    web.size(1280, 860)
    web.go(server.url)
    p.until("chat.facts.ctx === 2048")
    for check in (check_hostile, check_forms, check_chat, check_keeping, check_cluster, check_long,
                  check_settings, check_print, check_looks):
        check(lab, p)
    console = web.listen()
    # A status that refuses is written to the console by the browser itself.
    odd = [e["message"] for e in console if e["level"] in ("WARNING", "SEVERE") and not
           re.search(r"status of (401|404|503)|ERR_INCOMPLETE_CHUNKED|Canvas2D", e["message"])]
    lab.check(odd == [], "the console has nothing to say, and the policy nothing to refuse", odd)
    others = {u for u in web.requests if not u.startswith((server.url, "data:", "blob:"))}
    lab.check(others == set(), "no request goes elsewhere", others)
    web.close()
    lab.end()


if __name__ == "__main__":
    main()
