"""Problems, grids, linear maps and their discretisation; knows no solver."""
