"""The foveated video model: one visual token a frame, looked for twice."""
