package main

import (
	"fmt"
	"reflect"
	"strings"
)

// settingsSection is one table of the configuration file.
type settingsSection struct {
	name     string // "submit", "source.libtlsrpt"
	repeated bool   // [[name]], once per source
	settings []setting
}

// head is the line that begins the section in the file.
func (s settingsSection) head() string {
	if s.repeated {
		return "[[" + s.name + "]]"
	}
	return "[" + s.name + "]"
}

// setting is one key of the configuration file.
type setting struct {
	key   string
	value string // its default, as the file would have it
	doc   string
}

// settingsSections describes every setting, from the types of the configuration
// and their tags. Paths are those of a service, whoever asks.
func settingsSections() []settingsSection {
	c := defaults()
	c.Store.Path = systemState + "/tlsrpt.db"
	c.Source.Libtlsrpt = []libtlsrptConfig{{Socket: systemRuntime + "/tlsrpt.sock", Mode: defaultMode}}
	c.Source.PostfixLog = []postfixLogConfig{{Instance: defaultInstance}}
	return appendSections(nil, "", reflect.ValueOf(c))
}

// appendSections appends the tables within v, which the file calls prefix.
func appendSections(sections []settingsSection, prefix string, v reflect.Value) []settingsSection {
	for i := range v.NumField() {
		value, repeated := v.Field(i), false
		if value.Kind() == reflect.Slice && isTable(value.Type().Elem()) {
			value, repeated = value.Index(0), true
		}
		if !isTable(value.Type()) {
			continue
		}
		s := settingsSection{
			name:     strings.TrimPrefix(prefix+"."+v.Type().Field(i).Tag.Get("toml"), "."),
			repeated: repeated,
			settings: settingsOf(value),
		}
		if len(s.settings) > 0 {
			sections = append(sections, s)
		}
		sections = appendSections(sections, s.name, value)
	}
	return sections
}

// isTable reports whether the file has a table for t. A duration is a value.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[duration]()
}

// settingsOf is the settings of the table v itself.
func settingsOf(v reflect.Value) (settings []setting) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if isTable(f.Type) || f.Type.Kind() == reflect.Slice && isTable(f.Type.Elem()) {
			continue
		}
		settings = append(settings, setting{f.Tag.Get("toml"), defaultText(v.Field(i)), f.Tag.Get("doc")})
	}
	return settings
}

// defaultText is a value as the file would have it.
func defaultText(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return fmt.Sprintf("%q", s)
	}
	switch v.Kind() {
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Slice:
		var elements []string
		for i := range v.Len() {
			elements = append(elements, defaultText(v.Index(i)))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}
