"""Pictures of mannequins whose joints are known exactly: a skeleton, a camera, a renderer, annotations."""
