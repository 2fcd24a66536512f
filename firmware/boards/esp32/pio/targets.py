"""PlatformIO's targets of one environment: each is one tableside command."""

Import("env")  # noqa: F821 - PlatformIO provides it

board = env["PIOENV"]  # noqa: F821
tableside = ["$PYTHONEXE", "-m", "bench.cli.main"]

targets = [("bench", ["bench", "run", "--board", board], "Run all suites against this board")]
if board == "esp32":
    chip = env.GetProjectOption("custom_chip")  # noqa: F821
    line = ["--port", "$UPLOAD_PORT", "--baud", "$UPLOAD_SPEED"]
    targets = [
        (
            "bench",
            ["bench", "run", "--board", board, "--port", "$UPLOAD_PORT"],
            "Run all suites against this chip",
        ),
        ("upload", ["firmware", "flash", "--chip", chip, *line], "Flash the last build and verify it"),
        (
            "application",
            ["firmware", "flash", "--chip", chip, "--only", "vfs", *line],
            "Flash the application alone",
        ),
    ]

for name, arguments, description in targets:
    env.AddCustomTarget(  # noqa: F821
        name=name,
        dependencies=None,
        actions=[[*tableside, *arguments]],
        title=name,
        description=description,
        always_build=True,
    )
