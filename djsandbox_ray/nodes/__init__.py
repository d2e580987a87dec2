"""Ray's nodes: ``connection``, ``kinds`` of them, ``packing`` of groups, ``waiting`` for room.

``actors`` compute ranges of something large, as many at once as there is room for.
"""
