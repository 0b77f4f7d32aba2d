package main

import (
	"flag"
	"fmt"

	"homeroom/store"
)

// oneFile reads the command line of a command that wants one FILE.
func oneFile(env environment, flags *flag.FlagSet, args []string) (file string, code int, done bool) {
	if code, done := parse(flags, args, 1); done {
		return "", code, true
	}
	if flags.Arg(0) == "" {
		fmt.Fprintf(env.stderr, "%s: name a FILE; `%s -h` explains\n", flags.Name(), flags.Name())
		return "", exitUsage, true
	}
	return flags.Arg(0), exitDone, false
}

// runBackup is "homeroom backup FILE".
func runBackup(env environment, flags *flag.FlagSet, args []string) int {
	find := folderFlags(flags, needsFolder)
	file, code, done := oneFile(env, flags, args)
	if done {
		return code
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	if err = store.Backup(env.ctx, env.stdout, t.folder(), file, controlFile); err == nil {
		t.sayFolder(env.stdout)
	}
	return t.report(env, err)
}

// runRestore is "homeroom restore FILE".
func runRestore(env environment, flags *flag.FlagSet, args []string) int {
	find := folderFlags(flags, needsStopped)
	force := flags.Bool("force", false, "put the backup in the place of a database that is there; that one is kept under another name")
	file, code, done := oneFile(env, flags, args)
	if done {
		return code
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	src := store.NewKeySource(t.cfg.Server.Key, t.folder(), nil, newGCM)
	return t.report(env, store.Restore(env.ctx, env.stdout, t.folder(), file, *force, src))
}

// runCheck is "homeroom check".
func runCheck(env environment, flags *flag.FlagSet, args []string) int {
	find := folderFlags(flags, needsSettings)
	if code, done := parse(flags, args, 0); done {
		return code
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	t.sayFolder(env.stdout)
	return t.report(env, store.Check(env.ctx, env.stdout, t.folder(), store.NewKeySource(t.cfg.Server.Key, t.folder(), env.ask, newGCM)))
}

// runKey is "homeroom key rotate".
func runKey(env environment, flags *flag.FlagSet, args []string) int {
	find := folderFlags(flags, needsStopped)
	to := flags.String("to", "", "change to this `KEY`: a file, or \"ask\" for a passphrase (default: as server.key)")
	if code, done := parse(flags, args, 1); done {
		return code
	}
	if flags.Arg(0) != "rotate" {
		fmt.Fprintf(env.stderr, "homeroom key: what is to be done with it? there is: homeroom key rotate\n")
		return exitUsage
	}
	t, err := find()
	if err != nil {
		return report(env, err)
	}
	from := store.NewKeySource(t.cfg.Server.Key, t.folder(), env.ask, newGCM)
	next := from
	if *to != "" {
		next = store.NewKeySource(*to, t.folder(), env.ask, newGCM)
	}
	t.sayFolder(env.stdout)
	err = store.Rotate(env.ctx, env.stdout, t.folder(), from, next)
	if err == nil && *to != "" {
		fmt.Fprintf(env.stdout, "now have server.key in the settings say where the key comes from: %q\n", *to)
	}
	return t.report(env, err)
}
