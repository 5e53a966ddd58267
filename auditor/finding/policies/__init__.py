"""Rule packs as data: what a law, a standard or a rule of one's own asks a report to hold; one TOML file each."""
