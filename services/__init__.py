"""The services of the mesh, one room each, and the kit that they stand on."""
