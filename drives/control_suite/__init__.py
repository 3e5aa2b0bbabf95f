"""Episodes of the DeepMind control suite, rendered by MuJoCo; the extra `dmcontrol`."""
