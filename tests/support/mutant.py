"""mutant.py - the library with a change, for tests that must notice it: crash/mutants, model/mutants."""
import json
import os
import shlex
import subprocess
import sys


def fail(text):
    print("mutants: " + text)
    sys.exit(2)


def compile_command(build, source, target):
    """How BUILD compiles SOURCE for TARGET, without output and dependency file."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        for entry in json.load(file):
            if entry["file"].endswith("liballoc/" + source) and target in entry["output"]:
                words = iter(shlex.split(entry["command"]))
                return entry["directory"], entry["file"], list(keep_words(words))
    return fail(f"{build} does not compile {source}")


def keep_words(words):
    for word in words:
        if word in ("-MQ", "-MF", "-o", "-c"):
            next(words)
        elif word not in ("-MD", "-g", "-Werror") and not word.startswith("-O"):
            yield word


def mutate(path, changes, name):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for old, new in changes:
        if text.count(old) != 1:
            print(f"{name}: its text occurs {text.count(old)} times in {path}, not once: the source has changed, change the mutant too:\n{old}")
            return None
        text = text.replace(old, new)
    return text


def build_mutant(build, folder, mutant, target, object_folders):
    """The program of OBJECT_FOLDERS and the library with MUTANT's file, as TARGET compiles it, compiled anew; None: it could not be made."""
    name, source, changes = mutant[:3]
    directory, path, compile_words = compile_command(build, source, target)
    text = mutate(os.path.join(directory, path), changes, name)
    if text is None:
        return None
    changed = os.path.join(folder, os.path.basename(source))
    with open(changed, "w", encoding="utf-8") as file:
        file.write(text)
    subprocess.run(compile_words + ["-w", "-O0", "-c", changed, "-o", changed + ".o"], cwd=directory, check=True)
    program = os.path.join(folder, name)
    objects = [os.path.join(build, f, file) for f in object_folders for file in sorted(os.listdir(os.path.join(build, f)))
               if file.endswith(".o") and not file.endswith("_" + os.path.basename(source) + ".o")]
    # Before the archive: what the mutant defines is not looked for there.
    compiler = compile_words[:next(i for i, word in enumerate(compile_words) if word.startswith("-"))]
    subprocess.run(compiler + ["-o", program, changed + ".o"] + objects + [os.path.join(build, "liballoc-objects.a"), "-pthread"], check=True)
    return program


def run_all(mutants, wanted, build_one, run):
    """Every mutant whose name begins with one of WANTED is caught by its scenarios. Return: exit status."""
    chosen = [mutant for mutant in mutants if not wanted or mutant[0].startswith(tuple(wanted))]
    failures = 0
    for mutant in chosen:
        program = build_one(mutant)
        finding = run(program, mutant[3]) if program else "!it could not be made"
        if finding is None:
            finding = "!not caught by " + mutant[3]
        failures += finding.startswith("!")
        print(f"{'NOT CAUGHT' if finding.startswith('!') else 'caught'} {mutant[0]}: {finding}", flush=True)
        if program:
            os.unlink(program)
    print(f"{len(chosen)} mutants, {failures} not caught")
    return 1 if failures or not chosen else 0
