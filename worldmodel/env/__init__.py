"""The dream of a world model that someone drives: its session, its controls, Gymnasium's view.

Importing this package registers `dashcast/Dream-v0`.
"""

from gymnasium.envs.registration import register, registry

ENVIRONMENT = "dashcast/Dream-v0"

if ENVIRONMENT not in registry:
    register(
        ENVIRONMENT,
        entry_point="worldmodel.env.environment:DreamEnv",
        vector_entry_point="worldmodel.env.environment:DreamVectorEnv",
    )
