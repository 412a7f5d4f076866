"""Serves the reading page (standalone Voila on the one notebook, one identity per reader) and
manages readers.

    python -m helpers.reading.server STUDY
    [serve|links|add|revoke|renew|status|export|backup|verify|withdraw|erase] [READER]

This process holds no key, no source names, no truth and no pandas.
"""

import argparse
import socket
import sys
from argparse import Namespace
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import exc

from helpers.reading import operations, setting, store, troubles
from helpers.runner import parameters


def refuse_taken(ip: str, port: int) -> None:
    """Raise SettingError if the port cannot be used."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip or "0.0.0.0", port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise setting.SettingError(
                f"Port {port} of '{ip}' cannot be used ({why}): choose another with --port or --ip."
            ) from None


ARGUMENTS = {
    "--port": {"type": int, "default": 8866},
    "--ip": {
        "default": "127.0.0.1",
        "help": "address to listen on; leave it as it is behind a proxy",
    },
    "--url": {
        "default": "",
        "help": "address that readers use, for their links, e.g. https://study.example.org/",
    },
    "--base-url": {"help": "path below which the page is served; default: that of --url"},
    "--proxied": {
        "nargs": "?",
        "const": "127.0.0.1",
        "metavar": "PROXY",
        "help": "trust X-Forwarded-For and X-Forwarded-Proto of the proxy at this address (default:"
        " this machine); it must set both",
    },
    "--no-links": {
        "action": "store_true",
        "help": "print no reader's link, for a server whose output is stored; DO=links prints them",
    },
    "--reading-set": {"type": Path, "help": "a reading_set/ folder that was copied to this host"},
    "--to": {
        "default": "",
        "help": "where export and backup write: a folder, a .sqlite file, or for export a URL",
    },
    "--hash": {"help": "the hash that a reader kept from the lock, for verify"},
    "--reason": {"default": "", "help": "the reason, for withdraw and erase"},
}


def parse(arguments: list[str] | None) -> Namespace:
    """Parse the command line and normalise its addresses. Raises SettingError for an invalid
    address.
    """
    explained = [
        f"  {name:<10}" + " ".join(command.__doc__.split("\n\n")[0].split())
        for name, command in operations.COMMANDS.items()
    ]
    parser = argparse.ArgumentParser(
        prog="make reader",
        usage="make reader STUDY=study [DO=command] [ARGS='[reader] [options]']",
        description=__doc__.split("\n\n")[0],
        epilog="\n".join(["commands:", *explained]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study")
    commands = ["serve", *operations.COMMANDS]
    parser.add_argument("command", nargs="?", default="serve", choices=commands)
    parser.add_argument("reader", nargs="?", default="", help="a reader's opaque id")
    for name, argument in ARGUMENTS.items():
        parser.add_argument(name, **argument)
    options = parser.parse_args(arguments)
    if options.reader and options.command in ("serve", "links", "status", "export", "backup"):
        raise setting.SettingError(
            f"{options.command} takes no reader: leave '{options.reader}' out. A place needs --to."
        )
    public = urlsplit(options.url)
    if options.url and not (public.scheme in ("http", "https") and public.netloc):
        raise setting.SettingError(
            "--url must be the whole address that readers use, like https://study.example.org/."
        )
    path = (public.path if options.base_url is None else options.base_url).strip("/")
    options.base_url = f"/{path}/" if path else "/"
    loopback = options.proxied == "127.0.0.1"
    options.proxied = ("127.0.0.1", "::1") if loopback else (options.proxied,)
    here = socket.gethostname() if options.ip in ("", "0.0.0.0", "::") else options.ip
    here = f"[{here}]" if ":" in here else here
    local = f"http://{here}:{options.port}{options.base_url}"
    options.link = f"{(options.url or local).rstrip('/')}/login#"
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status. An error is printed as one sentence."""
    known = (setting.SettingError, store.StoreError, store.Refused, parameters.ParameterError)
    try:
        options = parse(arguments)
        opened = setting.load(options.study, options.reading_set)
        engine = store.open_store(opened.store_place)
        if options.command != "serve":
            return operations.COMMANDS[options.command](engine, opened, options) or 0
        # Jupyter's jsonschema would parse a grammar of addresses, which nothing here uses: 40 % of
        # the time until the page is served. Only serving needs Voila.
        sys.modules.setdefault("rfc3987_syntax", None)
        from helpers.reading import app

        refuse_taken(options.ip, options.port)
        store.check_writable(engine)
        operations.greet(engine, opened, options)
        app.serve(opened, engine, options)
        return 0
    except known as error:
        print(error, file=sys.stderr)
    except (exc.SQLAlchemyError, OSError) as error:
        of_file = isinstance(error, OSError) and str(error)  # such as a folder for a backup
        why = of_file or troubles.trouble(error) or "the database refused the request"
        print(f"Nothing was done: {why}. Correct this and try again.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
