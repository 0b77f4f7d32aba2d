package main

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit say what this program was built from; `make release` sets
// them.
var (
	version = "0.1.0"
	commit  = "" // "": what Go has noted
)

func runVersion(env environment, flags *flag.FlagSet, args []string) int {
	if code, done := parse(flags, args, 0); done {
		return code
	}
	fmt.Fprint(env.stdout, versionText())
	return exitDone
}

// versionText says what this program is, for `homeroom version`.
func versionText() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return fmt.Sprintf("homeroom %s, protocol %s\ncommit %s\n%s, %s\n",
		version, protocolVersion, builtFrom(info), runtime.Version(), builtFor(info))
}

// builtFrom is the commit that a release was built from or, in another build, the
// one that Go has noted, if any.
func builtFrom(info *debug.BuildInfo) string {
	if commit != "" {
		return commit
	}
	noted := buildSetting(info, "vcs.revision")
	if noted == "" {
		return "unknown"
	}
	if buildSetting(info, "vcs.modified") == "true" {
		return noted + ", changed"
	}
	return noted
}

// builtFor is the kind of machine: linux/amd64, or linux/arm 6.
func builtFor(info *debug.BuildInfo) string {
	kind := runtime.GOOS + "/" + runtime.GOARCH
	if arm := buildSetting(info, "GOARM"); arm != "" {
		kind += " " + arm
	}
	return kind
}

// buildSetting is what a build was made with, "" where that is not known.
func buildSetting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
