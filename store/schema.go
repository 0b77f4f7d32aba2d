package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// checkSchema fails where a database of that version has another schema than the
// migrations make. A trigger or a view would run with every change or read of whoever
// opens the database, and nothing in it is sealed.
func checkSchema(q querier, version int) error {
	wrong, err := foreignSchema(q, version)
	if err != nil {
		return explainDamage(err)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("its schema was changed by another program: %s; nothing was changed; undo that, or restore a backup",
			strings.Join(wrong, ", "))
	}
	return nil
}

// foreignSchema lists the parts of a schema that are not as the migrations make them.
func foreignSchema(q querier, version int) (wrong []string, err error) {
	want, err := schemaOfVersion(version)
	if err != nil {
		return nil, err
	}
	got, err := schemaParts(q)
	if err != nil {
		return nil, err
	}
	for _, part := range slices.Sorted(maps.Keys(got)) {
		if text, known := want[part]; !known {
			wrong = append(wrong, part+" is unknown")
		} else if text != got[part] {
			wrong = append(wrong, part+" is different")
		}
	}
	for _, part := range slices.Sorted(maps.Keys(want)) {
		if _, there := got[part]; !there {
			wrong = append(wrong, part+" is missing")
		}
	}
	return wrong, nil
}

// schemaOfVersion makes an empty database of a version in memory, and returns its schema.
func schemaOfVersion(version int) (map[string]string, error) {
	db, err := openURI(":memory:", nil)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // another connection would have another database
	for _, step := range migrations[:version] {
		if _, err := db.Exec(step); err != nil {
			return nil, fmt.Errorf("making a schema of version %d: %w", version, err)
		}
	}
	return schemaParts(db)
}

// schemaParts returns what a database consists of, by kind and name, as SQL without
// spaces. What SQLite makes by itself is left out.
func schemaParts(q querier) (map[string]string, error) {
	rows, err := q.Query(`SELECT type, name, coalesce(sql, '') FROM sqlite_schema
		WHERE name NOT LIKE 'sqlite\_autoindex%' ESCAPE '\' AND name NOT LIKE 'sqlite\_stat%' ESCAPE '\'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	parts := map[string]string{}
	for rows.Next() {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			return nil, err
		}
		parts[kind+" "+name] = strings.Join(strings.Fields(text), "")
	}
	return parts, rows.Err()
}
