"""Packages of Debian, fetched at test time and unpacked into a folder, never installed nor committed. The lists, keys and
sources of apt stay as they are: what must differ (deb-src) is told to apt in a folder of its own."""
import glob
import os
import re
import shutil
import subprocess


def run(argv, cwd=None):
    r = subprocess.run(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    if r.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed:\n{r.stdout[-3000:]}")
    return r.stdout


def _source_lists(folder):
    """The machine's own sources with deb-src in place of deb."""
    os.makedirs(f"{folder}/sources.d", exist_ok=True)
    for path in glob.glob("/etc/apt/sources.list") + glob.glob("/etc/apt/sources.list.d/*"):
        with open(path) as f:
            text = f.read()
        if path.endswith(".sources"):
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
        elif path.endswith(".list"):
            text = re.sub(r"(?m)^deb\s", "deb-src ", text)
        else:
            continue
        with open(f"{folder}/sources.d/{os.path.basename(path)}", "w") as f:
            f.write(text)


def source(package, folder):
    """Fetches and unpacks a source package; the folder of its tree. Once: later calls find it there."""
    apt = f"{folder}/apt"
    for sub in ("lists/partial", "archives/partial"):
        os.makedirs(f"{apt}/{sub}", exist_ok=True)
    _source_lists(apt)
    options = ["-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={apt}/sources.d",
               "-o", f"Dir::State::Lists={apt}/lists", "-o", f"Dir::Cache={apt}", "-o", "APT::Sandbox::User=root",
               "-o", "Acquire::Retries=3", "-o", "Acquire::Languages=none"]
    run(["apt-get", *options, "update"])
    run(["apt-get", *options, "source", "--download-only", package], cwd=folder)
    dsc, = glob.glob(f"{folder}/*.dsc")
    tree = f"{folder}/{package}"
    shutil.rmtree(tree, ignore_errors=True)
    run(["dpkg-source", "--no-check", "-x", dsc, tree])
    shutil.rmtree(apt)
    return tree


def package(name, folder):
    """Fetches a binary package and unpacks its files below the folder, as they would lie below /."""
    os.makedirs(folder, exist_ok=True)
    run(["apt-get", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download", name], cwd=folder)
    deb, = glob.glob(f"{folder}/{name}_*.deb")
    run(["dpkg-deb", "-x", deb, folder])
    os.unlink(deb)
    return folder
