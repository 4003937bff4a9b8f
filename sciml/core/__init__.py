"""Problems, linear algebra and answers; knows no discretisation and no solver."""
