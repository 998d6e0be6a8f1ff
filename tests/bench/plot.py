# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG, by hand: some panels one below the other over one horizontal axis.  Readable without
colour: every line has a dash pattern and a mark of its own."""
import html

DASHES = ["", "6 3", "2 3", "8 3 2 3"]
COLOURS = ["#1f5fa8", "#b8451f", "#3d7a35", "#7a3d8c"]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 230, 70, 170, 34, 44


def ticks(most, n=5):
    """Round values from 0 that cover most."""
    if most <= 0:
        return [0, 1]
    step = 1.0
    while step * n > most:
        step /= 10
    while step * n < most:
        step *= 10
    for divide in (5, 4, 2):
        if step / divide * n >= most:
            step /= divide
            break
    return [i * step for i in range(int(most / step + 0.999999) + 1)]


def mark(kind, x, y, colour):
    shapes = ["<circle cx='%.1f' cy='%.1f' r='3.5'" % (x, y),
              "<rect x='%.1f' y='%.1f' width='7' height='7'" % (x - 3.5, y - 3.5),
              "<path d='M%.1f %.1fl4 7h-8z'" % (x, y - 4),
              "<path d='M%.1f %.1fl4 4l-4 4l-4 -4z'" % (x, y - 4)]
    return "%s fill='%s'/>" % (shapes[kind % 4], colour)


def panel(title, unit, lines, x_label, x_most, top):
    """lines: [(name, [(x, y), ...])]"""
    w, h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    ys = ticks(max([y for _, points in lines for _, y in points] or [1]))
    xs = ticks(x_most, 8)
    out = ["<g transform='translate(%d %d)'>" % (LEFT, top + TOP),
           "<text x='0' y='-14' class='title'>%s</text>" % html.escape(title)]

    def at(x, y):
        return w * x / xs[-1], h - h * y / ys[-1]
    for y in ys:
        out.append("<path d='M0 %.1fH%d' class='grid'/><text x='-8' y='%.1f' class='end'>%g</text>" %
                   (at(0, y)[1], w, at(0, y)[1] + 4, y))
    for x in xs:
        out.append("<path d='M%.1f %dv4' class='axis'/><text x='%.1f' y='%d' class='middle'>%g</text>" %
                   (at(x, 0)[0], h, at(x, 0)[0], h + 17, x))
    out.append("<path d='M0 0V%dH%d' class='axis'/>" % (h, w))
    out.append("<text x='%d' y='%d' class='middle'>%s</text>" % (w // 2, h + 34, html.escape(x_label)))
    out.append("<text transform='translate(-52 %d) rotate(-90)' class='middle'>%s</text>" %
               (h // 2, html.escape(unit)))
    for i, (name, points) in enumerate(lines):
        colour = COLOURS[i % 4]
        path = " ".join("%s%.1f %.1f" % ("L" if k else "M", *at(*p)) for k, p in enumerate(points))
        out.append("<path d='%s' fill='none' stroke='%s' stroke-width='1.8' stroke-dasharray='%s'/>" %
                   (path, colour, DASHES[i % 4]))
        out += [mark(i, *at(*p), colour) for p in points]
        out.append(mark(i, w + 18, 8 + 20 * i, colour))
        out.append("<text x='%d' y='%d'>%s</text>" % (w + 30, 12 + 20 * i, html.escape(name)))
    return "\n".join(out + ["</g>"])


def chart(title, panels, x_label):
    """panels: [(title, unit, lines)]; the text of an SVG file."""
    x_most = max([x for _, _, lines in panels for _, points in lines for x, _ in points] or [1])
    height = 40 + HEIGHT * len(panels)
    body = "\n".join(panel(t, unit, lines, x_label, x_most, 40 + HEIGHT * i)
                     for i, (t, unit, lines) in enumerate(panels))
    return """<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' font-family='sans-serif'
 font-size='12'>
<style>.grid{stroke:#ddd}.axis{stroke:#444;fill:none}.end{text-anchor:end}.middle{text-anchor:middle}
.title{font-weight:bold}text{fill:#222}</style>
<rect width='100%%' height='100%%' fill='white'/>
<text x='%d' y='24' font-size='15' class='title'>%s</text>
%s
</svg>
""" % (WIDTH, height, LEFT, html.escape(title), body)
