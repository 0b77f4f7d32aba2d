package main

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
)

// settings is what holds now of the settings that can change while the server
// runs. Nobody changes it: a reload puts another one in its place.
func (srv *server) settings() *config { return srv.live.Load() }

// settingsOf is every setting by its key, as people read it.
func settingsOf(c config) map[string]string {
	all := map[string]string{}
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		section := v.Field(i)
		for j := range section.NumField() {
			field := section.Type().Field(j)
			key := field.Tag.Get("toml")
			if key == "" {
				key = strings.ToLower(field.Name)
			}
			all[strings.ToLower(v.Type().Field(i).Name)+"."+key] = fmt.Sprint(section.Field(j).Interface())
		}
	}
	return all
}

// keepFixed puts what only a start can change back to what it was.
func (c *config) keepFixed(was *config) {
	c.Server.Listen, c.Server.Data, c.Server.Key = was.Server.Listen, was.Server.Data, was.Server.Key
	c.Persist, c.Auth.Iterations, c.TLS = was.Persist, was.Auth.Iterations, was.TLS
	c.Web.Listen, c.SSH, c.Find = was.Web.Listen, was.SSH, was.Find
}

// errNoReload is where a server was not started with a way to read settings anew.
var errNoReload = errors.New("this server cannot read its settings anew")

// reload reads the settings anew, has those hold that can change while the server
// runs, and says what changed, a line each. Where they are refused, all stays as it
// was.
func (srv *server) reload(by string) (changes []string, err error) {
	defer srv.reloading.take()()
	if srv.reread == nil {
		return nil, errNoReload
	}
	wanted, err := srv.reread()
	if err != nil {
		slog.Error("the settings are refused; all stays as it was", "by", by, "error", oneLine(err))
		return nil, err
	}
	was, next := srv.settings(), wanted
	next.keepFixed(was)
	changes = differences(was, &wanted, &next)
	srv.apply(&next)
	if len(changes) == 0 {
		slog.Info("the settings were read; nothing changed", "by", by)
	}
	for _, line := range changes {
		slog.Info("the settings were read", "by", by, "change", line)
	}
	return changes, nil
}

// apply has settings hold.
func (srv *server) apply(next *config) {
	srv.doorway.admission.configure(next)
	srv.accounts.configure(next.Limits.LoginsPerMinute)
	srv.doors.configure(next.Limits.LoginsPerMinute)
	srv.log.Configure(next.logOptions())
	srv.live.Store(next)
}

// differences says which settings change, and which would at the next start.
func differences(was, wanted, next *config) (lines []string) {
	before, after, held := settingsOf(*was), settingsOf(*wanted), settingsOf(*next)
	for key, value := range after {
		switch {
		case value == before[key]:
		case held[key] == value:
			lines = append(lines, fmt.Sprintf("%s is %s now; it was %s", key, shown(value), shown(before[key])))
		default:
			lines = append(lines, fmt.Sprintf("%s stays %s until the server is started anew; then it is %s", key, shown(before[key]), shown(value)))
		}
	}
	slices.Sort(lines)
	return lines
}

// shown is a setting's value as it is shown: one line, and an empty one is seen.
func shown(value string) string {
	if value == "" {
		return `""`
	}
	return visible(value)
}

// cmdReload is "#reload": what changed, or why the settings are refused and 3504.
func (s *session) cmdReload(_ []string, r *reply) error {
	changes, err := s.srv.reload(s.shownName())
	if err != nil {
		s.put(warningFrame(oneLine(err)))
		return fail(statusBadArgs)
	}
	r.list("reload", len(changes))
	for _, line := range changes {
		r.row(quoted(line))
	}
	return nil
}
