package main

import (
	"context"
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

// setting is one field of a config.
type setting struct {
	key     string // as people read it: section.name
	value   reflect.Value
	atStart bool // it changes only at a start
}

// all returns every setting, in an order that is always the same.
func (c *config) all() (settings []setting) {
	const tag, atStart = "reload", "start"
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		section, fields := v.Type().Field(i), v.Field(i)
		for j := range fields.NumField() {
			field := fields.Type().Field(j)
			name := field.Tag.Get("toml")
			if name == "" {
				name = strings.ToLower(field.Name)
			}
			settings = append(settings, setting{
				key: strings.ToLower(section.Name) + "." + name, value: fields.Field(j),
				atStart: section.Tag.Get(tag) == atStart || field.Tag.Get(tag) == atStart,
			})
		}
	}
	return settings
}

// String returns a setting's value in one line, of which an empty one is seen.
func (s setting) String() string {
	if text := visible(fmt.Sprint(s.value)); text != "" {
		return text
	}
	return `""`
}

// reloaded returns the settings that hold once a reload has read wanted, and what
// changes, or would at a start, a line each.
func (c *config) reloaded(wanted config) (next config, changes []string) {
	next = wanted
	before := c.all()
	for i, s := range next.all() {
		was, now := before[i].String(), s.String()
		switch {
		case s.value.Equal(before[i].value):
		case s.atStart:
			changes = append(changes, fmt.Sprintf("%s stays %s until the server is started anew; then it is %s", s.key, was, now))
			s.value.Set(before[i].value)
		default:
			changes = append(changes, fmt.Sprintf("%s is %s now; it was %s", s.key, now, was))
		}
	}
	slices.Sort(changes)
	return next, changes
}

// errNoReload is where a server was not started with a way to read settings anew.
var errNoReload = errors.New("this server cannot read its settings anew")

// reload reads the settings anew, has those hold that can change while the server
// runs, and says what changed, a line each. Where they are refused, or a start with
// them would fail, all stays as it was.
func (srv *server) reload(by string) (changes []string, err error) {
	defer srv.reloading.take()()
	if srv.reread == nil {
		return nil, errNoReload
	}
	wanted, err := srv.reread()
	if err == nil {
		err = srv.newTrial(srv.settings()).start(context.Background(), &wanted)
	}
	if err != nil {
		slog.Error("the settings are refused; all stays as it was", "by", by, "error", oneLine(err))
		return nil, err
	}
	next, changes := srv.settings().reloaded(wanted)
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
	srv.accounts.configure(&next.Limits)
	srv.doors.configure(&next.Limits)
	srv.log.Configure(next.logOptions())
	srv.live.Store(next)
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
