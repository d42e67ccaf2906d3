from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("forum", "0003_token_names")]

    operations = [
        migrations.AddField(
            model_name="account",
            name="is_linked",
            field=models.BooleanField(default=False),
        ),
    ]
