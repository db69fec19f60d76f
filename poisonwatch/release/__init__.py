"""Which rows may be trained on: releases, their manifests, and the gate."""
