"""PlatformIO's build of an environment: `tableside firmware build` for its board."""

from SCons.Script import AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
env.Replace(PROGNAME="firmware")

command = ["$PYTHONEXE", "-m", "bench.cli.main", "firmware", "build", "--board", env["PIOENV"]]
if env["PIOENV"] == "esp32":
    command += ["--chip", env.GetProjectOption("custom_chip")]
build = env.Alias("firmware", None, [command])
AlwaysBuild(build)
Default([build])
