"""Finite volumes of second order on tensor grids.

The equation is integrated over the control volume C_i of every unknown,

    int_{C_i} -div(K grad u) + b . grad u + c u = int_{C_i} f,

so that A is symmetric where the equation is self-adjoint, and the entries of b are integrals. Which
points are unknowns is said in ``layout``, fluxes in ``fluxes`` and ``tensor``, sides in
``boundary``, holes in ``obstacle``.
"""
