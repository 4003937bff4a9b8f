"""Linear maps, systems of equations, stencils and matrices, and the kernels beneath them."""
