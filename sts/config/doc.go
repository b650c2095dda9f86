// Package config reads a configuration directory and refuses one that is not fully understood.
//
// A directory has one server file and one folder per door, owned by different people:
//
//	sallyport.yaml    the service: its name, its listeners, its keys, its audit log
//	trust/*.yaml      door one: whom we believe; one file per trust domain
//	targets/*.yaml    what can be asked for; one file per target
//	policy/*.yaml     door two: who may have what; rules in order of file name and line
//
// [Load] decodes strictly, checks everything, and builds. It reports every problem at once as [Problems],
// each with file, line and column, the value, the rule it breaks and the fix. It has no side effects: it
// opens no socket and writes nothing, so `sallyport check` is Load. Its answer, a [Set], is never changed.
//
// Beyond the schema it refuses: unknown and duplicate keys, a second document, anchors, aliases, merge keys
// and tags (a reviewer sees what a line says without following references), characters that hide or reorder
// text, empty values and empty lists (an empty list never means "all"), numbers where a word was meant
// ("99" is not 99), a secret in place of a reference to one, secret files that others can read, and files
// in the three folders that would not be read.
//
// Specs: YAML 1.2; RFC 8414 section 2 (issuer identifier), RFC 9068 section 5 (audiences of different
// targets), RFC 7517 (JWK sets), SPIFFE-ID section 2 (trust domain names).
package config
