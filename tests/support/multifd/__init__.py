"""
A scripted source and destination of multifd migrations, without QEMU, and a plain reader of one.

``plan`` is what a guest's RAM is and when its pages are sent, ``dialects`` how each version of QEMU
says so, ``talk`` the bytes of all connections in order, ``play`` their sender. ``order`` has a talk
arrive in other orders and pieces, ``faults`` makes it one of a broken or hostile source, and
``strategies`` draws talks. ``destination`` is the other end, ``manners`` makes it a broken or
hostile one with ``answers`` of its own, and ``waiting`` shows it as a QEMU's monitor would.
``reader`` and ``recorder`` take a real QEMU's connections apart, by which all of this is checked.
Nothing here knows the package.
"""
