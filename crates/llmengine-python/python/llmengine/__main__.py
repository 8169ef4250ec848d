"""`python -m llmengine` says which package `llmengine` is, where it calls, and whether another one is in its way."""

import sys

import llmengine


def main() -> int:
    """Returns 0 if all is well."""
    # Where the other package was installed later, most files are its own, and this one is still here.
    if not hasattr(llmengine, "retry"):
        print("llmengine is the published client, scale-llm-engine: it was installed over this one.")
        print("To have this one: pip uninstall -y scale-llm-engine; then install its wheel again, with --force-reinstall")
        return 1
    from llmengine import _coexistence, api_engine

    print(f"llmengine {llmengine.__version__}, from {llmengine.__path__[0]}")
    print(f"server: {api_engine.get_base_path()}")
    version = _coexistence.other_version()
    if version is not None:
        print(f"{_coexistence.OTHER} {version} is installed too.\n{_coexistence.CHOICE}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
