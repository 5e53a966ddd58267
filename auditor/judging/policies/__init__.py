"""Rule packs as data: the report contents that a law, a standard or an own rule requires; one TOML file each."""
