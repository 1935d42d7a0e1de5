"""Structs in several processes: what a script declares is the same type on every P, and what two declare differently is never taken for the same."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gomp

@gomp.struct
class Leaf:
    n: int

@gomp.struct
class Point:
    x: gomp.int16
    leaf: Leaf

@gomp.struct
class Box:
    first: gomp.Inline[Point]
    points: gomp.Array[gomp.Inline[Point], 3]
    links: gomp.Array["Later", 2]
    self: "Box"
    boxes: gomp.Array["Box"]
    rows: gomp.Array[gomp.Array[int]]
    weights: gomp.Array[gomp.uint8, 3]
    name: gomp.Str

@gomp.struct
class Later:
    n: int

WEIGHTS = gomp.Array[gomp.uint8, 3]
ROW = gomp.Global("row", gomp.Array[gomp.int8])

@gomp.compiled
def total(b: Box) -> int:
    return b.points[1].x + b.links[0].n + len(b.name) + b.weights[2]

{body}
"""
EVERYTHING = """
def fill() -> int:
    box = gomp.globals["box"]
    box.points[1].x = 5
    box.points[1].leaf = gomp.new(Leaf, n=8)
    box.weights[2] = 9
    box.links[0] = gomp.new(Later, n=7)
    box.self = box
    box.boxes = gomp.array(Box, [box, None])
    box.rows = gomp.array(gomp.Array[int], [gomp.array(int, [1, 2])])
    box.name = gomp.str("héllo")
    assert type(box.weights) is WEIGHTS
    ROW.set(gomp.array(gomp.int8, [-1]))
    return total(box)

if __name__ == "__main__":
    with gomp.Runtime(procs=2) as rt:
        box = gomp.new(Box)
        gomp.globals["box"] = box
        assert rt.run(fill) == total(box) == 5 + 7 + 5 + 9
        assert (box.points[1].leaf.n, box.boxes[0], box.rows[0][:], box.weights[:]) == (8, box, [1, 2], [0, 0, 9])
        assert ROW.get()[:] == [-1]
        gomp.globals["part"] = box.points[1]
        point = gomp.globals["part"]
        del box, gomp.globals["box"], gomp.globals["part"]
        gomp.gc()
        assert point.x == 5 and point.leaf.n == 8
        print(rt.verify())
    try:
        point.x
    except gomp.RuntimeLost as error:
        print(error)
    with gomp.Runtime(procs=1):
        fresh = gomp.new(Point)
        for use in (lambda: point.x, lambda: setattr(point, "x", 1), lambda: setattr(fresh, "leaf", point.leaf), lambda: gomp.array(Point, [point])):
            try:
                use()
            except gomp.RuntimeLost as error:
                print(error)
"""
REDECLARED = """
def read(name: str) -> str:
    source = OTHER[name]
    names = {"gomp": gomp, "__name__": "__main__"}
    exec(source, names)
    try:
        return repr(gomp.globals["object"].x)
    except TypeError as error:
        return str(error)

OTHER = {
    "nothing": "",
    "itself": "@gomp.struct\\nclass Point:\\n    x: gomp.int32\\n    y: int",
    "its target": "@gomp.struct\\nclass Leaf:\\n    n: float\\n@gomp.struct\\nclass Point:\\n    x: gomp.int16\\n    leaf: Leaf",
    "one field more": "@gomp.struct\\nclass Point:\\n    x: gomp.int16",
    "one field less": "@gomp.struct\\nclass Leaf:\\n    n: int\\n@gomp.struct\\nclass Point:\\n    x: gomp.int16\\n    leaf: Leaf\\n    y: int",
    "another order": "@gomp.struct\\nclass Leaf:\\n    n: int\\n@gomp.struct\\nclass Point:\\n    leaf: Leaf\\n    x: gomp.int16",
    "the same": "@gomp.struct\\nclass Leaf:\\n    n: int\\n@gomp.struct\\nclass Point:\\n    x: gomp.int16\\n    leaf: Leaf",
}

if __name__ == "__main__":
    with gomp.Runtime(procs=1) as rt:
        gomp.globals["object"] = gomp.new(Point, x=3)
        for name in OTHER:
            print(rt.run(read, name))
        assert "verified" in str(rt.verify())
"""


def run(tmp_path, body):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.replace("{body}", body))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_script_and_its_ps_have_the_same_types(tmp_path):
    lines = run(tmp_path, EVERYTHING)
    assert lines[0].startswith("verified at level 3")
    assert lines[1].endswith("no runtime is open in this process: use gomp.Runtime()")
    assert len(lines) == 6
    assert all(line.endswith("belongs to a runtime that has ended") for line in lines[2:])


DIFFERENT = "an object of __main__.Point, which was declared differently where the object comes from: {}; declare them alike in both processes"


def test_a_struct_declared_differently_is_refused_by_name_and_field(tmp_path):
    assert run(tmp_path, REDECLARED) == [
        "an object of Point that this process has not declared: import the module that declares it first",
        DIFFERENT.format("field x of Point is an int32 here and an int16 there"),
        DIFFERENT.format("field n of Leaf is a float here and an int there"),
        DIFFERENT.format("Point has a field leaf there, a reference to __main__.Leaf"),
        DIFFERENT.format("field y of Point is not there"),
        DIFFERENT.format("the fields of Point are in another order there"),
        "3",
    ]
