package main

import (
	"regexp"
	"runtime/debug"
	"testing"
)

// TestVersion: every line of `homeroom version` is there.
func TestVersion(t *testing.T) {
	t.Parallel()
	code, got, complaint := runLine("version")
	want := regexp.MustCompile(`^homeroom \d+\.\d+\.\d+\S*, protocol 0\.03\ncommit \S.*\ngo\d\S+.*, linux/\w+( \d.*)?\n$`)
	if code != exitDone || !want.MatchString(got) || complaint != "" {
		t.Errorf("exit code %d, %q, %q", code, got, complaint)
	}
}

// TestBuiltFrom: where nobody set the commit, it is what Go has noted.
func TestBuiltFrom(t *testing.T) {
	t.Parallel()
	build := func(pairs ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{}
		for i := 0; i < len(pairs); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: pairs[i], Value: pairs[i+1]})
		}
		return info
	}
	for _, test := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{build(), "unknown"},
		{build("vcs", "git", "vcs.revision", "abc", "vcs.modified", "false"), "abc"},
		{build("vcs.modified", "true", "vcs.revision", "abc"), "abc, changed"},
	} {
		if got := builtFrom(test.info); got != test.want {
			t.Errorf("%v: %q, want %q", test.info.Settings, got, test.want)
		}
	}
	arm, other := builtFor(build("GOARM", "6")), builtFor(build())
	if arm != other+" 6" {
		t.Errorf("built for %q, and without GOARM for %q", arm, other)
	}
}
